use serde_json::{Value, json};
use testbed::model::Behaviour;
use tokio::sync::{mpsc, oneshot};

use crate::support::event_stream::{event_names, streamed_text};
use crate::support::fixtures::Conversation;
use crate::support::wait::wait_for;
use crate::support::{TestApp, TestClient};

crate::on_both!(
    a_reply_arrives_piece_by_piece_and_is_stored,
    a_client_that_disconnects_ends_the_request_to_the_model,
    an_interrupted_retry_keeps_the_longer_reply,
    a_failure_of_the_model_is_an_error_event,
    a_failure_after_a_part_of_the_reply_stores_the_part,
    a_repeated_stream_gets_the_stored_reply,
    concurrent_streams_of_one_message_return_one_reply,
    an_invalid_surrogate_becomes_a_replacement_character,
    a_stream_without_blank_lines_is_complete,
    an_unreadable_part_marks_the_reply_as_incomplete,
    a_shutdown_ends_a_stream_with_an_error_event(shutdown_timeout_seconds(0)),
);

/// Waits until a conversation has this many messages; returns them.
async fn wait_for_messages(client: &TestClient<'_>, conversation: Conversation, count: usize) -> Vec<Value> {
    wait_for(async || {
        let page = client.get(&conversation.path()).await.assert_ok().body;
        Some(page["messages"].as_array().unwrap().clone()).filter(|messages| messages.len() == count)
    })
    .await
}

async fn a_reply_arrives_piece_by_piece_and_is_stored(app: &TestApp) {
    let ada = app.student("ada").await;
    app.model.next(Behaviour::Say("one two three".to_owned()));
    let events = ada.stream_message(json!({"message": "count"})).await.collect().await;
    assert_eq!(event_names(&events), ["start", "delta", "delta", "delta", "done"]);
    let deltas: String = events[1..4].iter().map(|(_, data)| data["content"].as_str().unwrap()).collect();
    assert_eq!(deltas, "one two three");
    let (start, done) = (&events[0].1, &events[4].1);
    assert_eq!(done["model"], "fake-1");
    assert_eq!(
        (&done["tokens_used"], &done["cached"], &done["finish_reason"]),
        (&json!(13), &json!(false), &json!("stop"))
    );
    let messages = wait_for_messages(&ada, Conversation::of(start), 2).await;
    assert_eq!((&messages[0]["id"], &messages[0]["content"]), (&start["user_message_id"], &json!("count")));
    assert_eq!((&messages[1]["id"], &messages[1]["content"]), (&done["message_id"], &json!("one two three")));
    assert_eq!(app.model.received()[0].body["stream"], true);
}

/// Streams the first words of a reply and disconnects; returns the conversation and its messages.
async fn interrupt_reply(client: &TestClient<'_>) -> (Conversation, Vec<Value>) {
    let (feed, pieces) = mpsc::channel(4);
    client.app.model.next(Behaviour::Feed(pieces));
    let mut events = client.stream_message(json!({"message": "tell me"})).await;
    let (_, start) = events.next().await.unwrap();
    feed.send("Once upon ".to_owned()).await.unwrap();
    assert_eq!(events.next().await.unwrap().1, json!({"content": "Once upon "}));
    drop(events);
    client.app.model.until_left(1).await;
    let conversation = Conversation::of(&start);
    (conversation, wait_for_messages(client, conversation, 2).await)
}

async fn a_client_that_disconnects_ends_the_request_to_the_model(app: &TestApp) {
    let ada = app.student("ada").await;
    let (_, messages) = interrupt_reply(&ada).await;
    assert_eq!(messages[1]["content"], "Once upon ");
    assert_eq!(messages[1]["metadata"]["finish_reason"], "interrupted");
}

async fn an_interrupted_retry_keeps_the_longer_reply(app: &TestApp) {
    let ada = app.student("ada").await;
    let (conversation, messages) = interrupt_reply(&ada).await;
    let retry = conversation.retry_path();
    let (feed, pieces) = mpsc::channel(4);
    feed.send("Once".to_owned()).await.unwrap();
    app.model.next(Behaviour::Feed(pieces));
    let mut events = ada.stream_retry(&retry).await;
    for expected in ["start", "delta"] {
        assert_eq!(events.next().await.unwrap().0, expected);
    }
    drop(feed);
    assert_eq!(event_names(&events.collect().await), ["error"]);
    assert_eq!(wait_for_messages(&ada, conversation, 2).await, messages);
    // A complete reply replaces it.
    let events = ada.stream_retry(&retry).await.collect().await;
    assert_eq!(event_names(&events).last(), Some(&"done"));
    let replaced = wait_for_messages(&ada, conversation, 2).await;
    assert_eq!((&replaced[1]["content"], &replaced[1]["id"]), (&json!("You said: tell me"), &messages[1]["id"]));
    assert_eq!(replaced[1]["metadata"]["finish_reason"], "stop");
    let list = ada.get("/api/chat/conversations").await.assert_ok().body;
    assert_eq!(list["conversations"][0]["last_message_preview"], "You said: tell me");
    assert_eq!(list["conversations"][0]["message_count"], 2);
}

async fn a_failure_of_the_model_is_an_error_event(app: &TestApp) {
    let ada = app.student("ada").await;
    app.model.next(Behaviour::Fail(500, None));
    let events = ada.stream_message(json!({"message": "one"})).await.collect().await;
    assert_eq!(event_names(&events), ["start", "error"]);
    assert_eq!(events[1].1["code"], "LLM_UNAVAILABLE");
}

async fn a_failure_after_a_part_of_the_reply_stores_the_part(app: &TestApp) {
    let ada = app.student("ada").await;
    let conversation = ada.conversation().create().await;
    let (feed, pieces) = mpsc::channel(4);
    app.model.next(Behaviour::Feed(pieces));
    feed.send("half a".to_owned()).await.unwrap();
    let mut events = ada.stream_message(json!({"message": "two", "conversation_id": conversation.id})).await;
    for expected in ["start", "delta"] {
        assert_eq!(events.next().await.unwrap().0, expected);
    }
    drop(feed);
    assert_eq!(event_names(&events.collect().await), ["error"]);
    let stored = wait_for_messages(&ada, conversation, 2).await;
    assert_eq!((&stored[0]["content"], &stored[1]["content"]), (&json!("two"), &json!("half a")));
    assert_eq!(stored[1]["metadata"]["finish_reason"], "error");
    ada.post(&conversation.retry_path(), json!({})).await.assert_ok();
    assert_eq!(wait_for_messages(&ada, conversation, 2).await[1]["metadata"]["finish_reason"], "stop");
}

async fn a_repeated_stream_gets_the_stored_reply(app: &TestApp) {
    let ada = app.student("ada").await;
    let body = json!({"message": "why?", "idempotency_key": "k1"});
    let first = ada.stream_message(body.clone()).await.collect().await;
    let again = ada.stream_message(body).await.collect().await;
    assert_eq!(event_names(&again), ["start", "delta", "done"]);
    assert_eq!(again[0], first[0]);
    assert_eq!(again[1].1["content"], "You said: why?");
    assert_eq!(again.last(), first.last());
    assert_eq!(app.model.received().len(), 1);
}

async fn concurrent_streams_of_one_message_return_one_reply(app: &TestApp) {
    let ada = app.student("ada").await;
    let (release, released) = oneshot::channel();
    app.model.next(Behaviour::SayLater("The one reply.".to_owned(), released));
    let body = json!({"message": "why?", "idempotency_key": "k1"});
    let mut first = ada.stream_message(body.clone()).await;
    let start = first.next().await.unwrap();
    let mut second = ada.stream_message(body.clone()).await;
    assert_eq!(second.next().await.unwrap(), start);
    let whole = ada.send_message(body);
    let (whole, first, second) = tokio::join!(whole, first.collect(), async {
        release.send(()).unwrap();
        second.collect().await
    });
    assert_eq!((streamed_text(&first).as_str(), streamed_text(&second).as_str()), ("The one reply.", "The one reply."));
    assert_eq!(first.last(), second.last());
    assert_eq!(whole.assert_ok().body["message_id"], first.last().unwrap().1["message_id"]);
    assert_eq!(app.model.received().len(), 1);
}

/// Returns an event of the model's stream with a part of the reply.
fn part(text: &str) -> String {
    format!("data: {{\"choices\": [{{\"delta\": {{\"content\": \"{text}\"}}}}]}}\n\n")
}

fn stream(lines: &str) -> Behaviour {
    Behaviour::Raw(200, "text/event-stream", lines.as_bytes().to_vec())
}

async fn an_invalid_surrogate_becomes_a_replacement_character(app: &TestApp) {
    let ada = app.student("ada").await;
    app.model.next(stream(&format!("{}{}data: [DONE]\n\n", part("one \\ud83d "), part("two"))));
    let whole = ada.stream_message(json!({"message": "a"})).await.collect().await;
    assert_eq!(whole.last().unwrap().1["finish_reason"], "stop");
    assert_eq!(whole[1].1["content"], "one \u{fffd} ");
}

async fn a_stream_without_blank_lines_is_complete(app: &TestApp) {
    let ada = app.student("ada").await;
    let lines = format!("{}{}data: [DONE]\n", part("one "), part("two")).replace("\n\n", "\n");
    app.model.next(stream(&lines));
    let joined = ada.stream_message(json!({"message": "c"})).await.collect().await;
    assert_eq!(
        (streamed_text(&joined).as_str(), &joined.last().unwrap().1["finish_reason"]),
        ("one two", &json!("stop"))
    );
}

async fn an_unreadable_part_marks_the_reply_as_incomplete(app: &TestApp) {
    let ada = app.student("ada").await;
    app.model.next(stream(&format!("{}data: {{\"choices\": [\n\n{}data: [DONE]\n\n", part("one "), part("two"))));
    let damaged = ada.stream_message(json!({"message": "b"})).await.collect().await;
    assert_eq!(damaged.last().unwrap().1["finish_reason"], "error", "a retry replaces it");
}

async fn a_shutdown_ends_a_stream_with_an_error_event(app: &TestApp) {
    let ada = app.student("ada").await;
    let (feed, pieces) = mpsc::channel(4);
    app.model.next(Behaviour::Feed(pieces));
    let mut events = ada.stream_message(json!({"message": "tell me"})).await;
    let (_, start) = events.next().await.unwrap();
    feed.send("Once ".to_owned()).await.unwrap();
    events.next().await.unwrap();
    app.shut_down();
    let rest = events.collect().await;
    assert_eq!(event_names(&rest), ["error"]);
    assert_eq!(rest[0].1["code"], "OVERLOADED");
    let messages = ada.stored_messages(Conversation::of(&start)).await;
    let reply = &messages[1];
    assert_eq!((reply.content.as_str(), reply.finish_reason.as_deref()), ("Once ", Some("interrupted")));
}
