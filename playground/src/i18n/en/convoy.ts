import type { Policy } from "../../api/live";
import type { Reading } from "../../views/convoy/reading";

const policies: Readonly<Record<Policy, string>> = {
  window: "window",
  slo: "latency objective",
  sequence: "sequences",
  ensemble: "ensemble",
  single: "one by one",
};

const readings: Readonly<Record<Reading, string>> = {
  idle: "Nothing is asked at the moment. Start the load, and watch how requests share batches.",
  keepsUp: "The model keeps up: requests hardly wait, and nearly all are answered within the objective.",
  filling:
    "More arrives than the model can do, or it was held up: the queue grows, everyone waits longer, and fewer answers " +
    "come within the objective, although the model works all the time.",
  windowFull:
    "The queue is full. Whoever gets in waits for all who were there before, so that answers come late, and the rest is " +
    "refused. The model does as much as ever, but hardly anything of it in time: goodput collapses.",
  sloKeepsUp: "The model keeps up, and promises to: each request is let in because it can be answered within the objective.",
  sloRefuses:
    "More arrives than the model can do. Whatever could not be answered within the objective is refused at once, and may " +
    "try elsewhere; the rest is answered in time. The queue stays short, and goodput stays near what the model can do.",
};

export const convoy = {
  title: "Watch the convoy",
  lead:
    "Requests that come while the model is busy wait, and then travel together: a convoy, which is a batch. " +
    "Offer the model more than it can do, and see what each policy makes of it.",
  policies,
  readings,
  model: {
    none: "No model can be watched",
    noneHint: "This view needs a model that is loaded, takes batches, and has inputs of fixed size.",
  },
  road: {
    alt: "A road: requests arrive on the left, wait at the gate, and leave in convoys on the right. The figures below say the same.",
    waiting: (count: string) => `${count} waiting`,
    refused: "refused",
    rows: (count: string) => `${count} rows`,
    legend: { request: "a request", engine: "front of a batch", refused: "a refused request" },
    oneIn: (count: string) => `One batch in ${count} is drawn.`,
    policy: (policy: string) => `Policy: ${policy}`,
  },
  load: {
    title: "Offered load",
    factor: "Load, in multiples of what the model can do",
    value: (factor: string, rate: string) => `${factor} ×, that is ${rate} requests/s`,
    start: "Start the load",
    stop: "Stop the load",
    capacity: (rate: string, rows: string) =>
      `The model does about ${rate} requests of ${rows} rows each per second: so it was measured before it served. It does less while the machine has other things to do, this page among them.`,
    unmeasured: "The model has not been measured, so that nobody knows what it can do.",
    honest:
      "The server makes these requests itself: random numbers, at random moments (a Poisson process), straight into the " +
      "model's queue. So no network is in the way, and what makes them takes its share of the processor. They end when " +
      "you leave.",
    skipped: (count: string) => `${count} requests were not sent, since the server was too busy to send them in time.`,
  },
  policy: {
    title: "When more comes than goes",
    window: "Window",
    windowHint: "Everyone may wait, until the queue is full.",
    slo: "Latency objective",
    sloHint: "Who cannot be answered in time is refused at once.",
    objective: "Objective, in milliseconds",
    changed: (rows: string) =>
      `The model was loaded with this policy and batches of up to ${rows} rows. It gets its own configuration back when you leave.`,
    restore: "Give it back now",
    fixed: "This server loads no models on request, so that the load goes to the model as it is.",
    failed: "The policy cannot be changed here, so that the load goes to the model as it is",
    busy: "The model is being loaded with the new policy…",
  },
  figures: {
    title: "Now",
    waiting: "in the queue",
    waitingRows: (rows: string) => `${rows} rows`,
    p50: "median latency",
    p99: "99th percentile",
    answered: "answers per second",
    goodput: "of them in time",
    refused: "refused per second",
    objective: (milliseconds: string) => `within ${milliseconds} ms`,
    ofOffered: (percent: string) => `${percent} of what came`,
    running: (requests: string) => `${requests} running`,
    none: "–",
    seconds: (value: string) => `${value} s`,
    milliseconds: (value: string) => `${value} ms`,
  },
  charts: {
    title: (seconds: string) => `The last ${seconds} seconds`,
    latency: "Latency, ms",
    rates: "Requests per second",
    queue: "Requests in the queue",
    sizes: "Requests in a batch",
    sizesHint: "last 3 s",
    sizeRange: (from: string, to: string) => `${from}–${to}`,
    share: (requests: string, percent: string) => `${requests}: ${percent}`,
    noBatches: "No batch ran.",
    objective: "objective",
    series: {
      p50: "median",
      p99: "99th percentile",
      answered: "answered",
      inTime: "in time",
      failed: "refused",
      waiting: "waiting",
    },
  },
  tables: {
    batches: "The last batches",
    columns: { requests: "Requests", rows: "Rows", waited: "Longest wait", took: "Took" },
    reasons: "Refused and failed, by reason",
    reason: "Reason",
    perSecond: "Per second",
    noReasons: "None in the last seconds.",
    names: {
      queue_full: "the queue is full",
      overloaded: "it could not be in time",
      too_late: "its time ran out while it waited",
      memory: "the server's memory for requests is full",
      not_ready: "the model was not ready",
      unknown_model: "there is no such model now",
    } as Readonly<Record<string, string>>,
  },
};
