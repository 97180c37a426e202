import { randomBytes } from "node:crypto";

const ALIAS = /^erased_[0-9a-f]{24}$/;

/** A new, unique customer id, which takes over what an erased customer used. */
export const newAlias = (): string => `erased_${randomBytes(12).toString("hex")}`;

/** Whether a customer is called like an alias. */
export const looksLikeAlias = (customer: string): boolean => ALIAS.test(customer);
