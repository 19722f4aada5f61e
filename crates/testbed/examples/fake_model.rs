//! Serves a model that repeats the student's message, to try the chat without a real endpoint:
//! `cargo run -p testbed --example fake_model -- 127.0.0.1:9090`

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9090".to_owned());
    let model = testbed::FakeModel::listen(&address).await?;
    println!("LLM_BASE_URL={} LLM_MODEL=fake-1", model.base_url());
    std::future::pending().await
}
