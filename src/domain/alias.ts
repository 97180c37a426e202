import { randomBytes } from "node:crypto";

const ALIAS = /^erased_[0-9a-f]{24}$/;

/** A customer who has from now on what another one used until an erasure; nobody else has the name. */
export const newAlias = (): string => `erased_${randomBytes(12).toString("hex")}`;

/** Whether a customer is called like an alias. */
export const looksLikeAlias = (customer: string): boolean => ALIAS.test(customer);
