// Uses the API as a frontend would: types from the generated `api.d.ts`, cookies and the CSRF token of a log-in.
// Arguments: the server's address, and the e-mail address and password of a verified student.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { paths } from "./api.js";

const [baseUrl, email, password] = process.argv.slice(2) as [string, string, string];

const cookies = new Map<string, string>();
const client = createClient<paths>({ baseUrl });
client.use({
  onRequest({ request }) {
    request.headers.set("Cookie", [...cookies].map(([name, value]) => `${name}=${value}`).join("; "));
    if (request.method !== "GET") request.headers.set("X-CSRF-Token", cookies.get("csrf_token") ?? "");
    return request;
  },
  onResponse({ response }) {
    for (const line of response.headers.getSetCookie()) {
      const [name, value] = line.split(";", 1)[0]!.split("=", 2) as [string, string];
      if (value) cookies.set(name, value);
      else cookies.delete(name);
    }
    return undefined;
  },
});

let calls = 0;
function status(response: Response, expected: number): void {
  calls += 1;
  assert.equal(response.status, expected, `call ${calls}: ${response.url}`);
}

const registered = await client.POST("/api/auth/register", {
  body: { email: "typed@example.com", password: "Correct-1-horse", name: "Typed" },
});
status(registered.response, 201);
assert.equal(registered.data?.user.email_verified, false);

const unverified = await client.GET("/api/chat/conversations");
status(unverified.response, 403);
assert.equal(unverified.error?.error.code, "EMAIL_NOT_VERIFIED");

const loggedIn = await client.POST("/api/auth/login", { body: { email, password } });
status(loggedIn.response, 200);
assert.equal(loggedIn.data?.user.email, email);

const created = await client.POST("/api/chat/conversations", { body: { title: "From TypeScript" } });
status(created.response, 201);
const id = created.data!.conversation.id;

const sent = await client.POST("/api/chat/message", { body: { message: "hello", conversation_id: id } });
status(sent.response, 200);
assert.equal(sent.data?.conversation_id, id);

const streamed = await client.POST("/api/chat/stream", {
  body: { message: "once more", conversation_id: id },
  parseAs: "text",
});
status(streamed.response, 200);
assert.match(String(streamed.data), /^event: start\n/);

const list = await client.GET("/api/chat/conversations", { params: { query: { limit: 1 } } });
status(list.response, 200);
assert.equal(list.data?.conversations[0]?.title, "From TypeScript");

const invalid = await client.GET("/api/chat/conversations", { params: { query: { limit: 0 } } });
status(invalid.response, 422);
assert.equal(invalid.error?.error.details?.["field"], "limit");

const page = await client.GET("/api/chat/conversations/{id}", { params: { path: { id }, query: { order: "desc" } } });
status(page.response, 200);
assert.equal(page.data?.messages[0]?.role, "assistant");

const missing = await client.GET("/api/chat/conversations/{id}", { params: { path: { id: 4711 } } });
status(missing.response, 404);
assert.equal(missing.error?.error.code, "NOT_FOUND");

const updated = await client.PUT("/api/users/me", { body: { name: "Ada", timezone: "Europe/Berlin" } });
status(updated.response, 200);
assert.equal(updated.data?.profile.timezone, "Europe/Berlin");

const csv = await client.GET("/api/progress/export", { params: { query: { format: "csv" } }, parseAs: "text" });
status(csv.response, 200);
assert.match(String(csv.data), /^exercise_id,/);

const token = cookies.get("csrf_token")!;
cookies.delete("csrf_token");
const forged = await client.PUT("/api/users/me", { body: { name: "Eve" } });
status(forged.response, 403);
assert.equal(forged.error?.error.code, "CSRF_FAILED");
cookies.set("csrf_token", token);

const loggedOut = await client.POST("/api/auth/logout");
status(loggedOut.response, 200);

const gone = await client.GET("/api/auth/me");
status(gone.response, 401);
assert.equal(gone.error?.error.code, "UNAUTHENTICATED");

console.log(`${calls} calls`);
