//! The web page in a real browser: headless Chromium, spoken to by its DevTools protocol.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use support::{Phone, Plan, Shop, not_run};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

struct Browser {
    child: Child,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    number: u64,
    session: Value,
    _profile: tempfile::TempDir,
}

impl Browser {
    async fn start(program: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new(program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
            .args([
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let url = lines
            .find_map(|line| Some(line.strip_prefix("DevTools listening on ")?.to_owned()))
            .unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut browser = Self {
            child,
            socket,
            number: 0,
            session: Value::Null,
            _profile: profile,
        };
        let target = browser
            .call("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        browser.session = browser.call("Target.attachToTarget", attach).await["sessionId"].clone();
        browser
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": params});
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        let text = message.to_string();
        self.socket.send(Message::text(text)).await.unwrap();
        loop {
            let message = self.socket.next().await.unwrap().unwrap();
            let Message::Text(text) = message else {
                continue;
            };
            let answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == self.number {
                assert!(answer["error"].is_null(), "{answer}");
                return answer["result"].clone();
            }
        }
    }

    async fn run(&mut self, script: &str) -> Value {
        let params = json!({"expression": script, "returnByValue": true});
        self.call("Runtime.evaluate", params).await["result"]["value"].clone()
    }

    /// Waits until an element's text holds `wanted`.
    async fn until(&mut self, id: &str, wanted: &str) {
        let script = format!("document.getElementById('{id}')?.textContent");
        let mut text = Value::Null;
        for _ in 0..200 {
            text = self.run(&script).await;
            if text.as_str().is_some_and(|text| text.contains(wanted)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("#{id} shows {text} and not {wanted:?}");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn chromium() -> Option<String> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let there = |name: &&str| {
        let version = Command::new(name).arg("--version").output();
        version.is_ok_and(|output| output.status.success())
    };
    names.into_iter().find(there).map(ToOwned::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_shows_the_balance_and_the_top_up_as_it_happens() {
    let Some(program) = chromium() else {
        not_run("there is no Chromium");
        return;
    };
    let shop = Shop::in_sqlite(true).await;
    shop.account("alice").await;
    shop.account("bob").await;
    let card = shop.card(1, "alice").await;
    let other = shop.card(2, "bob").await;
    shop.voucher("GOLD", "alice", 20_00).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = topup::server::serve(listener, shop.desk.clone(), Duration::from_secs(1));
    let served = tokio::spawn(served);

    let mut browser = Browser::start(&program).await;
    let url = format!("http://{address}/");
    browser.call("Page.navigate", json!({"url": url})).await;
    browser.until("state", "Not connected").await;
    let enter = |token: &str| {
        format!(
            "document.getElementById('token').value = '{token}';
             document.querySelector('button').click()"
        )
    };
    browser.run(&enter("wrong")).await;
    browser.until("state", "no such account").await;
    browser.run(&enter("token of alice")).await;
    browser.until("state", "Hold your card").await;

    // Somebody else's tap shows nothing here.
    shop.honest(&other, "bob", "").await.unwrap();
    shop.honest(&card, "alice", "").await.unwrap();
    browser.until("balance", "5.00").await;
    shop.honest(&card, "alice", "GOLD").await.unwrap();
    browser.until("balance", "25.00").await;
    browser.until("state", "Topped up by 20.00").await;
    for step in ["Card is genuine", "Topping up 20.00", "Done"] {
        browser.until("steps", step).await;
    }
    let plan = Plan {
        leave_before_frame: Some(3),
        ..Plan::default()
    };
    shop.voucher("MORE", "alice", 1_00).await;
    let torn = shop
        .converse(Phone::new(&card, "alice", "MORE", plan))
        .await;
    assert!(torn.is_err());
    browser.until("state", "the card went away").await;

    shop.desk.stop.cancel();
    served.await.unwrap().unwrap();
}
