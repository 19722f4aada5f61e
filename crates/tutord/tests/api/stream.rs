use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use testbed::model::Behaviour;
use tokio::sync::{mpsc, oneshot};

use crate::harness::{Client, TestApp};

crate::on_both!(
    a_reply_comes_piece_by_piece_and_is_kept,
    a_client_that_leaves_ends_the_upstream_call,
    a_model_that_fails_is_an_error_event,
    a_repeated_stream_is_answered_from_the_store,
    streams_of_one_question_show_one_reply,
    a_part_that_cannot_be_read_makes_a_reply_incomplete,
    stopping_the_server_ends_streams_cleanly("--shutdown-timeout-seconds", "0"),
);

/// A stream of server-sent events, read one event at a time.
pub(crate) struct Events {
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<axum::body::Bytes>> + Send>>,
    text: String,
}

impl Events {
    async fn open(client: &Client<'_>, body: Value) -> Self {
        Self::of(client.request(Method::POST, "/api/chat/stream").json(&body)).await
    }

    async fn retry(client: &Client<'_>, path: &str) -> Self {
        Self::of(client.request(Method::POST, path).header("accept", "text/event-stream").json(&json!({}))).await
    }

    /// What a request is answered with.
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert!(!response.headers().contains_key("content-encoding"));
        Self { bytes: Box::pin(response.bytes_stream()), text: String::new() }
    }

    /// The next event's name and data; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let line = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let parsed = line("event: ").zip(line("data: "));
                self.text = rest.to_owned();
                match parsed {
                    Some((name, data)) => return Some((name, serde_json::from_str(&data).unwrap())),
                    None => continue,
                }
            }
            let bytes = self.bytes.next().await?.unwrap();
            self.text += std::str::from_utf8(&bytes).unwrap();
        }
    }

    pub(crate) async fn rest(mut self) -> Vec<(String, Value)> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

/// The messages of a conversation, once there are `count`.
async fn messages(client: &Client<'_>, id: &Value, count: usize) -> Vec<Value> {
    loop {
        let page = client.get(&format!("/api/chat/conversations/{id}")).await.ok().body;
        let messages = page["messages"].as_array().unwrap();
        if messages.len() == count {
            return messages.clone();
        }
        // Stored in the background; the runner ends a test that waits for ever.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn a_reply_comes_piece_by_piece_and_is_kept(app: &TestApp) {
    let ada = app.student("ada").await;
    app.model.next(Behaviour::Say("one two three".to_owned()));
    let events = Events::open(&ada, json!({"message": "count"})).await.rest().await;
    assert_eq!(names(&events), ["start", "delta", "delta", "delta", "done"]);
    let deltas: String = events[1..4].iter().map(|(_, data)| data["content"].as_str().unwrap()).collect();
    assert_eq!(deltas, "one two three");
    let (start, done) = (&events[0].1, &events[4].1);
    assert_eq!(done["model"], "fake-1");
    assert_eq!(
        (&done["tokens_used"], &done["cached"], &done["finish_reason"]),
        (&json!(13), &json!(false), &json!("stop"))
    );
    let messages = messages(&ada, &start["conversation_id"], 2).await;
    assert_eq!((&messages[0]["id"], &messages[0]["content"]), (&start["user_message_id"], &json!("count")));
    assert_eq!((&messages[1]["id"], &messages[1]["content"]), (&done["message_id"], &json!("one two three")));
    assert_eq!(app.model.received()[0].body["stream"], true);
}

async fn a_client_that_leaves_ends_the_upstream_call(app: &TestApp) {
    let ada = app.student("ada").await;
    let (feed, pieces) = mpsc::channel(4);
    app.model.next(Behaviour::Feed(pieces));
    let mut events = Events::open(&ada, json!({"message": "tell me"})).await;
    let (_, start) = events.next().await.unwrap();
    feed.send("Once upon ".to_owned()).await.unwrap();
    assert_eq!(events.next().await.unwrap().1, json!({"content": "Once upon "}));
    drop(events);
    app.model.until_left(1).await;
    let messages = messages(&ada, &start["conversation_id"], 2).await;
    assert_eq!(messages[1]["content"], "Once upon ");
    assert_eq!(messages[1]["metadata"]["finish_reason"], "interrupted");
    // A retry that breaks off earlier keeps the longer piece.
    let retry = format!("/api/chat/conversations/{}/retry", start["conversation_id"]);
    let (feed, pieces) = mpsc::channel(4);
    feed.send("Once".to_owned()).await.unwrap();
    app.model.next(Behaviour::Feed(pieces));
    let mut events = Events::retry(&ada, &retry).await;
    for expected in ["start", "delta"] {
        assert_eq!(events.next().await.unwrap().0, expected);
    }
    drop(feed);
    assert_eq!(names(&events.rest().await), ["error"]);
    assert_eq!(self::messages(&ada, &start["conversation_id"], 2).await, messages);
    // A whole one replaces it.
    let events = Events::retry(&ada, &retry).await.rest().await;
    assert_eq!(names(&events).last(), Some(&"done"));
    let replaced = self::messages(&ada, &start["conversation_id"], 2).await;
    assert_eq!((&replaced[1]["content"], &replaced[1]["id"]), (&json!("You said: tell me"), &messages[1]["id"]));
    assert_eq!(replaced[1]["metadata"]["finish_reason"], "stop");
    let list = ada.get("/api/chat/conversations").await.ok().body;
    assert_eq!(list["conversations"][0]["last_message_preview"], "You said: tell me");
    assert_eq!(list["conversations"][0]["message_count"], 2);
}

async fn a_model_that_fails_is_an_error_event(app: &TestApp) {
    let ada = app.student("ada").await;
    app.model.next(Behaviour::Fail(500, None));
    let events = Events::open(&ada, json!({"message": "one"})).await.rest().await;
    assert_eq!(names(&events), ["start", "error"]);
    assert_eq!(events[1].1["code"], "LLM_UNAVAILABLE");
    let (feed, pieces) = mpsc::channel(4);
    app.model.next(Behaviour::Feed(pieces));
    let conversation = events[0].1["conversation_id"].clone();
    feed.send("half a".to_owned()).await.unwrap();
    let mut events = Events::open(&ada, json!({"message": "two", "conversation_id": conversation})).await;
    for expected in ["start", "delta"] {
        assert_eq!(events.next().await.unwrap().0, expected);
    }
    drop(feed);
    assert_eq!(names(&events.rest().await), ["error"]);
    // What the student has read is stored, and the question can be asked again.
    let stored = messages(&ada, &conversation, 3).await;
    assert_eq!((&stored[1]["content"], &stored[2]["content"]), (&json!("two"), &json!("half a")));
    assert_eq!(stored[2]["metadata"]["finish_reason"], "error");
    ada.post(&format!("/api/chat/conversations/{conversation}/retry"), json!({})).await.ok();
    assert_eq!(messages(&ada, &conversation, 3).await[2]["metadata"]["finish_reason"], "stop");
}

async fn a_repeated_stream_is_answered_from_the_store(app: &TestApp) {
    let ada = app.student("ada").await;
    let body = json!({"message": "why?", "idempotency_key": "k1"});
    let first = Events::open(&ada, body.clone()).await.rest().await;
    let again = Events::open(&ada, body).await.rest().await;
    assert_eq!(names(&again), ["start", "delta", "done"]);
    assert_eq!(again[0], first[0]);
    assert_eq!(again[1].1["content"], "You said: why?");
    assert_eq!(again.last(), first.last());
    assert_eq!(app.model.received().len(), 1);
}

async fn streams_of_one_question_show_one_reply(app: &TestApp) {
    let ada = app.student("ada").await;
    let (say, later) = oneshot::channel();
    app.model.next(Behaviour::SayLater("The one reply.".to_owned(), later));
    let body = json!({"message": "why?", "idempotency_key": "k1"});
    let mut first = Events::open(&ada, body.clone()).await;
    let start = first.next().await.unwrap();
    let mut second = Events::open(&ada, body.clone()).await;
    assert_eq!(second.next().await.unwrap(), start);
    let whole = ada.post("/api/chat/message", body);
    let (whole, first, second) = tokio::join!(whole, first.rest(), async {
        say.send(()).unwrap();
        second.rest().await
    });
    let text = |events: &[(String, Value)]| -> String {
        events.iter().filter_map(|(_, data)| data["content"].as_str()).collect()
    };
    assert_eq!((text(&first).as_str(), text(&second).as_str()), ("The one reply.", "The one reply."));
    assert_eq!(first.last(), second.last());
    assert_eq!(whole.ok().body["message_id"], first.last().unwrap().1["message_id"]);
    assert_eq!(app.model.received().len(), 1);
}

async fn a_part_that_cannot_be_read_makes_a_reply_incomplete(app: &TestApp) {
    let ada = app.student("ada").await;
    let part = |text: &str| format!("data: {{\"choices\": [{{\"delta\": {{\"content\": \"{text}\"}}}}]}}\n\n");
    let stream = |lines: &str| Behaviour::Raw(200, "text/event-stream", lines.as_bytes().to_vec());
    app.model.next(stream(&format!("{}{}data: [DONE]\n\n", part("one \\ud83d "), part("two"))));
    let whole = Events::open(&ada, json!({"message": "a"})).await.rest().await;
    assert_eq!(whole.last().unwrap().1["finish_reason"], "stop");
    assert_eq!(whole[1].1["content"], "one \u{fffd} ");
    // An endpoint that leaves out the blank lines.
    let lines = format!("{}{}data: [DONE]\n", part("one "), part("two")).replace("\n\n", "\n");
    app.model.next(stream(&lines));
    let joined = Events::open(&ada, json!({"message": "c"})).await.rest().await;
    let text: String = joined.iter().filter_map(|(_, data)| data["content"].as_str()).collect();
    assert_eq!((text.as_str(), &joined.last().unwrap().1["finish_reason"]), ("one two", &json!("stop")));
    app.model.next(stream(&format!("{}data: {{\"choices\": [\n\n{}data: [DONE]\n\n", part("one "), part("two"))));
    let damaged = Events::open(&ada, json!({"message": "b"})).await.rest().await;
    assert_eq!(damaged.last().unwrap().1["finish_reason"], "error", "a retry replaces it");
}

async fn stopping_the_server_ends_streams_cleanly(app: &TestApp) {
    let ada = app.student("ada").await;
    let (feed, pieces) = mpsc::channel(4);
    app.model.next(Behaviour::Feed(pieces));
    let mut events = Events::open(&ada, json!({"message": "tell me"})).await;
    let (_, start) = events.next().await.unwrap();
    feed.send("Once ".to_owned()).await.unwrap();
    events.next().await.unwrap();
    app.app.background.shutdown.cancel();
    let rest = events.rest().await;
    assert_eq!(names(&rest), ["error"]);
    assert_eq!(rest[0].1["code"], "OVERLOADED");
    let id = start["conversation_id"].as_i64().unwrap();
    let page = tutord_core::PageRequest::first(5);
    let order = tutord_core::model::Order::Asc;
    let found = app.app.store.conversation_page(ada.user.id, id, order, &page).await.unwrap().unwrap();
    let reply = &found.messages.items[1];
    assert_eq!((reply.content.as_str(), reply.finish_reason.as_deref()), ("Once ", Some("interrupted")));
}
