// Four processes on one port: who gets each connection? Prints one line of JSON.
//
//     node cluster.js rr 100      the primary accepts and hands out in turn (Node's own choice)
//     node cluster.js none 100    the workers accept from one shared socket: the kernel decides
//
// stored.jsonl holds what both printed, one line each: (node cluster.js rr 100; node cluster.js
// none 100) > stored.jsonl
"use strict";
const cluster = require("node:cluster");
const net = require("node:net");

const WORKERS = 4;
const [policy, many] = process.argv.slice(2);

if (cluster.isPrimary) {
  // Before the first fork: afterwards Node ignores it.
  cluster.schedulingPolicy = policy === "rr" ? cluster.SCHED_RR : cluster.SCHED_NONE;
  listen().then(ask).then(report);
} else {
  const answer = (socket) => socket.end(Buffer.from([cluster.worker.id]));
  net.createServer(answer).listen(0, "127.0.0.1");
}

async function listen() {
  const started = Array.from({ length: WORKERS }, () => cluster.fork());
  const heard = started.map((worker) => new Promise((ready) => worker.once("listening", ready)));
  // Port 0 is drawn once, and is the same for all workers.
  return (await Promise.all(heard))[0].port;
}

async function ask(port) {
  const answered = new Array(WORKERS).fill(0);
  // One after the other: a connection is handed out when the last one was answered.
  for (let n = 0; n < Number(many); n++) answered[(await connect(port)) - 1]++;
  return answered;
}

function connect(port) {
  return new Promise((answer, failed) => {
    const socket = net.connect(port, "127.0.0.1").on("error", failed);
    socket.once("data", (data) => answer(data[0]));
  });
}

function report(requests) {
  console.log(JSON.stringify({ node: process.version, policy, requests }));
  for (const worker of Object.values(cluster.workers)) worker.kill();
  process.exit();
}
