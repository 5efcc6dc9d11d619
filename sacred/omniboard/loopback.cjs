// Loaded before Omniboard, which by itself listens on all interfaces and has no password.
"use strict";
const net = require("net");

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...others) {
  const ready = others.find((each) => typeof each === "function");
  return listen.call(this, { port, host: "127.0.0.1" }, ready);
};

// Our standard input is a pipe from store/board.py: it ends when that does, however it does.
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
