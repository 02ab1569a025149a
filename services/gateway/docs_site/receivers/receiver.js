// Receives webhooks: WEBHOOK_SECRET=whsec_… node receiver.js
const crypto = require("node:crypto");
const http = require("node:http");

const KEY = Buffer.from(process.env.WEBHOOK_SECRET.replace(/^whsec_/, ""), "base64");
const TOLERANCE_S = 300;
const BODY_LIMIT_BYTES = 1_000_000;
const seen = new Set(); // a table with a unique column, in production
if (KEY.length === 0) {
  // An empty key signs as well as any other, and everybody has it.
  throw new Error("WEBHOOK_SECRET is not whsec_ and base64");
}

function isGenuine(headers, body) {
  const id = headers["webhook-id"] ?? "";
  const timestamp = headers["webhook-timestamp"] ?? "";
  if (!/^[0-9]+$/.test(timestamp) || Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_S) {
    return false;
  }
  const digest = crypto.createHmac("sha256", KEY).update(`${id}.${timestamp}.`).update(body).digest("base64");
  const expected = Buffer.from(`v1,${digest}`);
  // There are two signatures while a secret is being replaced; one that fits is enough.
  const given = (headers["webhook-signature"] ?? "").split(" ").map((one) => Buffer.from(one));
  return given.some((one) => one.length === expected.length && crypto.timingSafeEqual(one, expected));
}

const server = http.createServer((request, response) => {
  const chunks = [];
  let length = 0;
  request.on("data", (chunk) => {
    length += chunk.length;
    if (length > BODY_LIMIT_BYTES) request.destroy();
    chunks.push(chunk);
  });
  request.on("end", () => {
    // The bytes as they came: a body that is parsed and written again has another signature.
    const body = Buffer.concat(chunks);
    if (!isGenuine(request.headers, body)) {
      response.writeHead(400).end();
      return;
    }
    const id = request.headers["webhook-id"];
    if (!seen.has(id)) {
      seen.add(id);
      console.log("genuine", id, JSON.stringify(JSON.parse(body)));
    }
    // Soon, and with any 2xx: whatever takes longer than ten seconds is sent again.
    response.writeHead(204).end();
  });
});

server.listen(Number(process.env.PORT ?? "8000"), "127.0.0.1", () => {
  console.log("listening on", server.address().port);
});
