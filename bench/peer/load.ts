// Load on the peer by autocannon, and the bookkeeping of what the peer has acknowledged.
import autocannon from "autocannon";

/** What each event reports. */
const VALUE = 25;

/** A request and whose usage it reports, an event each. */
type Request = { readonly path: string; readonly body: string; readonly customers: readonly string[] };

export type Outcome = {
  readonly seconds: number;
  /** Answers by status. */
  readonly answers: ReadonlyMap<number, number>;
  /** Of the 200s, ms. */
  readonly latencies: readonly number[];
  /** Events acknowledged, with those of requests that were sent again. */
  readonly acknowledged: number;
};

/** Reports events to the peer, of so many customers in turn, and knows what it acknowledged of each. */
export class Reporter {
  readonly acknowledged = new Map<string, number>();
  #made = 0;
  readonly #url: string;
  readonly #headers: Record<string, string>;

  constructor(url: string, key: string) {
    this.#url = url;
    this.#headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  }

  /** One event a request, of the customer or of so many in turn. */
  event(customers: string | number): Request {
    const { customer, report } = this.#report(customers);
    return { path: "/v2/billing/meter_events", body: JSON.stringify(report), customers: [customer] };
  }

  /** `size` events a request. */
  batch(customers: number, size: number): Request {
    const reports = Array.from({ length: size }, () => this.#report(customers));
    return {
      path: "/v2/billing/meter_event_stream",
      body: JSON.stringify({ events: reports.map(({ report }) => report) }),
      customers: reports.map(({ customer }) => customer),
    };
  }

  #report(customers: string | number) {
    const made = this.#made++;
    const customer = typeof customers === "string" ? customers : `cus_${made % customers}`;
    const payload = { stripe_customer_id: customer, value: String(VALUE) };
    return { customer, report: { event_name: "tokens", identifier: `bench-${made}`, payload } };
  }

  /** As much as so many connections can send in so many seconds. */
  async load(next: () => Request, connections: number, seconds: number): Promise<Outcome> {
    const answers = new Map<number, number>();
    const latencies: number[] = [];
    let acknowledged = 0;
    // What each connection waits for: autocannon has one context object for each.
    const waiting = new Map<object, Request>();
    const { promise: end, resolve, reject } = Promise.withResolvers<autocannon.Result>();
    const load: autocannon.Request = {
      method: "POST",
      headers: this.#headers,
      setupRequest: (request, context) => {
        const made = next();
        waiting.set(context, made);
        return { ...request, path: made.path, body: made.body };
      },
      onResponse: (status, _body, context) => {
        const request = waiting.get(context);
        waiting.delete(context);
        if (status === 200 && request !== undefined) acknowledged += this.#acknowledge(request);
      },
    };
    // sampleInt: how often it looks whether its time is over (ms).
    const options = { url: this.#url, connections, duration: seconds, sampleInt: 50, requests: [load] };
    autocannon(options, (error, result) => (error ? reject(error) : resolve(result))).on(
      "response",
      (_client, status, _bytes, ms) => {
        answers.set(status, (answers.get(status) ?? 0) + 1);
        if (status === 200) latencies.push(ms);
      },
    );
    const { duration, errors } = await end;
    if (errors > 0) throw new Error(`${errors} requests to the peer failed`);
    // Those that the end of the load cut off may be stored or not; sent again, they are.
    for (const request of waiting.values()) {
      acknowledged += await this.send(request);
    }
    return { seconds: duration, answers, latencies, acknowledged };
  }

  /** Sends a request, perhaps not for the first time, until its events are stored; gives their number. */
  async send(request: Request): Promise<number> {
    const { path, body } = request;
    for (;;) {
      const response = await fetch(this.#url + path, { method: "POST", headers: this.#headers, body });
      const answer = await response.text();
      if (response.ok || answer.includes('"duplicate_meter_event"')) return this.#acknowledge(request);
      if (response.status !== 409) throw new Error(`the peer answered ${response.status}: ${answer}`);
    }
  }

  #acknowledge({ customers }: Request): number {
    for (const customer of customers) this.acknowledged.set(customer, (this.acknowledged.get(customer) ?? 0) + VALUE);
    return customers.length;
  }

  /** What the summaries say that a customer used from an hour ago to an hour ahead. */
  async summary(meter: string, customer: string): Promise<number> {
    const hour = Math.floor(Date.now() / 3_600_000) * 3_600;
    const query = new URLSearchParams({ customer, start_time: `${hour - 3_600}`, end_time: `${hour + 7_200}` });
    const url = `${this.#url}/v1/billing/meters/${meter}/event_summaries?${query}`;
    const response = await fetch(url, { headers: { authorization: this.#headers.authorization ?? "" } });
    const { data } = (await response.json()) as { data: { aggregated_value: number }[] };
    return data[0]?.aggregated_value ?? 0;
  }
}
