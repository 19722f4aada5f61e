//! A real nginx in front of the server: streams without buffering, and the addresses of clients.

use std::net::IpAddr;

use serde_json::json;
use testbed::Nginx;
use testbed::model::Behaviour;
use tokio::sync::mpsc;

use crate::support::event_stream::EventStream;
use crate::support::{TestApp, TestResponse, fetch};

crate::on_both!(
    a_stream_arrives_piece_by_piece,
    each_client_of_a_trusted_proxy_has_its_own_limit(trusted_proxies("127.0.0.0/8").rate_limits().limit_oauth("1/h")),
    an_address_that_a_client_prepends_is_ignored(trusted_proxies("127.0.0.1").rate_limits().limit_oauth("1/h")),
    the_clients_of_an_untrusted_proxy_share_a_limit(rate_limits().limit_oauth("1/h")),
);

async fn a_stream_arrives_piece_by_piece(app: &TestApp) {
    let ada = app.student("ada").await;
    for (number, (http, compresses)) in [("", false), ("gzip on; gzip_types *;", true)].into_iter().enumerate() {
        let nginx = Nginx::start(&app.base_url, http).await.unwrap();
        // The cache may have the reply to a repeated message.
        let send = |client: &reqwest::Client, message: &str| {
            let request = client.post(format!("{}/api/chat/stream", nginx.url())).bearer_auth(&ada.token);
            request.json(&json!({"message": format!("{message} {number}")}))
        };

        // A client that decodes hides whether the response was compressed.
        let plain = reqwest::Client::builder().gzip(false).build().unwrap();
        let response = send(&plain, "whole").header("accept-encoding", "gzip").send().await.unwrap();
        assert_eq!(response.headers().contains_key("content-encoding"), compresses, "{http}");
        response.bytes().await.unwrap();

        let client = reqwest::Client::builder().gzip(true).build().unwrap();
        let (feed, pieces) = mpsc::channel(1);
        app.model.next(Behaviour::Feed(pieces));
        let mut events = EventStream::open(send(&client, "in pieces")).await;
        assert_eq!(events.next().await.unwrap().0, "start");
        for piece in ["Once ", "upon ", "a time "] {
            feed.send(piece.to_owned()).await.unwrap();
            // The model sends the next piece after the client has this one.
            assert_eq!(events.next().await.unwrap(), ("delta".to_owned(), json!({"content": piece})), "{http}");
        }
        // nginx reports that the client has left.
        drop(events);
        app.model.until_left(number + 1).await;
    }
}

/// Sends a request that each address may send once: the first gets a 501, all others a 429.
async fn request_once(nginx: &Nginx, client: &reqwest::Client, headers: &[(&str, &str)]) -> TestResponse {
    let request = client.get(format!("{}/api/auth/oauth/github", nginx.url()));
    fetch(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

#[track_caller]
fn assert_passes(response: &TestResponse) {
    response.assert_error(501, "NOT_IMPLEMENTED");
}

#[track_caller]
fn assert_limited(response: &TestResponse) {
    response.assert_error(429, "RATE_LIMIT_EXCEEDED");
}

/// The header whose value nginx uses as the client's address.
const CLIENT_ADDRESS: &str = "x-test-client";

async fn each_client_of_a_trusted_proxy_has_its_own_limit(app: &TestApp) {
    let client = reqwest::Client::new();
    for (number, set, passed_on) in [
        ("2", "X-Forwarded-For $http_x_test_client", ("forwarded", ["for=192.0.2.1", "for=192.0.2.2"])),
        ("3", "Forwarded 'for=\"$http_x_test_client\"'", ("x-forwarded-for", ["192.0.2.3", "192.0.2.4"])),
    ] {
        // Each nginx connects from its own address.
        let http = format!("proxy_bind 127.0.0.{number}; proxy_set_header {set};");
        let nginx = Nginx::start(&app.base_url, &http).await.unwrap();
        let addresses = [format!("198.51.100.{number}"), format!("[2001:db8:{number}::1]:4711")];
        for address in &addresses {
            assert_passes(&request_once(&nginx, &client, &[(CLIENT_ADDRESS, address.as_str())]).await);
        }
        for address in &addresses {
            assert_limited(&request_once(&nginx, &client, &[(CLIENT_ADDRESS, address.as_str())]).await);
        }
        // nginx forwards the header that it does not set. The two headers differ, so the address of nginx counts.
        let (name, [one, other]) = passed_on;
        let address = format!("203.0.113.{number}");
        assert_passes(&request_once(&nginx, &client, &[(CLIENT_ADDRESS, address.as_str()), (name, one)]).await);
        assert_limited(&request_once(&nginx, &client, &[(CLIENT_ADDRESS, address.as_str()), (name, other)]).await);
    }
}

async fn an_address_that_a_client_prepends_is_ignored(app: &TestApp) {
    let http = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";
    let nginx = Nginx::start(&app.base_url, http).await.unwrap();
    let at = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        reqwest::Client::builder().local_address(address).build().unwrap()
    };
    let (one, other) = (at("127.0.0.2"), at("127.0.0.3"));
    assert_passes(&request_once(&nginx, &one, &[("x-forwarded-for", "192.0.2.1")]).await);
    assert_limited(&request_once(&nginx, &one, &[("x-forwarded-for", "192.0.2.2")]).await);
    assert_passes(&request_once(&nginx, &other, &[("x-forwarded-for", "192.0.2.1")]).await);
}

async fn the_clients_of_an_untrusted_proxy_share_a_limit(app: &TestApp) {
    let nginx = Nginx::start(&app.base_url, "proxy_set_header X-Forwarded-For $http_x_test_client;").await.unwrap();
    let client = reqwest::Client::new();
    assert_passes(&request_once(&nginx, &client, &[(CLIENT_ADDRESS, "198.51.100.1")]).await);
    assert_limited(&request_once(&nginx, &client, &[(CLIENT_ADDRESS, "198.51.100.2")]).await);
}
