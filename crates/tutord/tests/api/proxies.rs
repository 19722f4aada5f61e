//! What comes through nginx, a real one: streams while they are made, and the addresses of clients.

use std::net::IpAddr;

use serde_json::json;
use testbed::Nginx;
use testbed::model::Behaviour;
use tokio::sync::mpsc;

use crate::harness::{Answer, TestApp, answer};
use crate::stream::Events;

crate::on_both!(
    a_stream_comes_through_piece_by_piece,
    each_client_of_a_trusted_proxy_has_an_allowance(
        "--trusted-proxies",
        "127.0.0.0/8",
        "--rate-limit-enabled",
        "true",
        "--rate-limit-oauth",
        "1/h"
    ),
    what_a_client_writes_to_the_left_is_not_believed(
        "--trusted-proxies",
        "127.0.0.1",
        "--rate-limit-enabled",
        "true",
        "--rate-limit-oauth",
        "1/h"
    ),
    clients_of_an_untrusted_proxy_share_an_allowance("--rate-limit-enabled", "true", "--rate-limit-oauth", "1/h"),
);

async fn a_stream_comes_through_piece_by_piece(app: &TestApp) {
    let ada = app.student("ada").await;
    for (number, (http, compresses)) in [("", false), ("gzip on; gzip_types *;", true)].into_iter().enumerate() {
        let nginx = Nginx::start(&app.base, http).await.unwrap();
        // A message that was answered before may be answered from the cache.
        let send = |client: &reqwest::Client, message: &str| {
            let request = client.post(format!("{}/api/chat/stream", nginx.url())).bearer_auth(&ada.token);
            request.json(&json!({"message": format!("{message} {number}")}))
        };

        // A client that decodes hides whether there was something to decode.
        let plain = reqwest::Client::builder().gzip(false).build().unwrap();
        let response = send(&plain, "whole").header("accept-encoding", "gzip").send().await.unwrap();
        assert_eq!(response.headers().contains_key("content-encoding"), compresses, "{http}");
        response.bytes().await.unwrap();

        let client = reqwest::Client::builder().gzip(true).build().unwrap();
        let (feed, pieces) = mpsc::channel(1);
        app.model.next(Behaviour::Feed(pieces));
        let mut events = Events::of(send(&client, "in pieces")).await;
        assert_eq!(events.next().await.unwrap().0, "start");
        for piece in ["Once ", "upon ", "a time "] {
            feed.send(piece.to_owned()).await.unwrap();
            // The model sends nothing more before this one is here.
            assert_eq!(events.next().await.unwrap(), ("delta".to_owned(), json!({"content": piece})), "{http}");
        }
        // The other way, too: nginx tells that the client has left.
        drop(events);
        app.model.until_left(number + 1).await;
    }
}

/// Asks for what each address gets once: 501 then, and 429 from then on.
async fn ask(nginx: &Nginx, client: &reqwest::Client, headers: &[(&str, &str)]) -> Answer {
    let request = client.get(format!("{}/api/auth/oauth/github", nginx.url()));
    answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

#[track_caller]
fn passes(answer: &Answer) {
    answer.fails(501, "NOT_IMPLEMENTED");
}

#[track_caller]
fn is_limited(answer: &Answer) {
    answer.fails(429, "RATE_LIMIT_EXCEEDED");
}

/// A header of the test stands for the address that nginx sees.
const CLIENT: &str = "x-test-client";

async fn each_client_of_a_trusted_proxy_has_an_allowance(app: &TestApp) {
    let client = reqwest::Client::new();
    for (number, set, passed_on) in [
        ("2", "X-Forwarded-For $http_x_test_client", ("forwarded", ["for=192.0.2.1", "for=192.0.2.2"])),
        ("3", "Forwarded 'for=\"$http_x_test_client\"'", ("x-forwarded-for", ["192.0.2.3", "192.0.2.4"])),
    ] {
        // Each nginx calls from an address of its own.
        let http = format!("proxy_bind 127.0.0.{number}; proxy_set_header {set};");
        let nginx = Nginx::start(&app.base, &http).await.unwrap();
        let addresses = [format!("198.51.100.{number}"), format!("[2001:db8:{number}::1]:4711")];
        for address in &addresses {
            passes(&ask(&nginx, &client, &[(CLIENT, address.as_str())]).await);
        }
        for address in &addresses {
            is_limited(&ask(&nginx, &client, &[(CLIENT, address.as_str())]).await);
        }
        // nginx passes on the header that it does not set. The two disagree, so nginx's own address counts.
        let (name, [one, other]) = passed_on;
        let address = format!("203.0.113.{number}");
        passes(&ask(&nginx, &client, &[(CLIENT, address.as_str()), (name, one)]).await);
        is_limited(&ask(&nginx, &client, &[(CLIENT, address.as_str()), (name, other)]).await);
    }
}

async fn what_a_client_writes_to_the_left_is_not_believed(app: &TestApp) {
    let http = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";
    let nginx = Nginx::start(&app.base, http).await.unwrap();
    let at = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        reqwest::Client::builder().local_address(address).build().unwrap()
    };
    let (one, other) = (at("127.0.0.2"), at("127.0.0.3"));
    passes(&ask(&nginx, &one, &[("x-forwarded-for", "192.0.2.1")]).await);
    is_limited(&ask(&nginx, &one, &[("x-forwarded-for", "192.0.2.2")]).await);
    passes(&ask(&nginx, &other, &[("x-forwarded-for", "192.0.2.1")]).await);
}

async fn clients_of_an_untrusted_proxy_share_an_allowance(app: &TestApp) {
    let nginx = Nginx::start(&app.base, "proxy_set_header X-Forwarded-For $http_x_test_client;").await.unwrap();
    let client = reqwest::Client::new();
    passes(&ask(&nginx, &client, &[(CLIENT, "198.51.100.1")]).await);
    is_limited(&ask(&nginx, &client, &[(CLIENT, "198.51.100.2")]).await);
}
