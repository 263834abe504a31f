//! A headless Chromium for one test: its own chromedriver on a free port, its own profile, nothing from the network.
//!
//! Without chromium or chromedriver a test says so and passes, unless `REQUIRE_ALL=1`, with which it fails. Browsers run
//! one at a time: pages judge silence by the clock, and a crowd of browsers on two cores would make them judge wrongly.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use fantoccini::{Client, ClientBuilder};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

/// Longest that a page may take to become what a test waits for. A guard, far beyond what a starved machine needs: what a
/// page should take is a figure, and figures are asserted in the long runs alone (`SENSORIUM_SLOW=1`).
const PATIENCE: Duration = Duration::from_secs(300);

/// Longest that the browser may take to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
];

/// Whether figures are asserted (`SENSORIUM_SLOW=1`): on a machine that has nothing else to do.
pub fn is_long_run() -> bool {
    std::env::var("SENSORIUM_SLOW").is_ok_and(|value| value == "1")
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A browser with one page.
pub struct Chromium {
    pub page: Client,
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// Ends the session, also when a test fails: chromedriver closes its browser then, but not when it is killed itself.
impl Drop for Chromium {
    fn drop(&mut self) {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let request = format!(
                "DELETE /session/{} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n",
                self.session, self.port
            );
            // The answer comes when the browser is gone; then nothing writes into its profile any more.
            let _ = stream.set_read_timeout(Some(CLOSE_WITHIN));
            let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read(&mut [0; 512]));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Chromium {
    /// Starts one, or explains why there is none and returns `None`.
    pub async fn start() -> Option<Self> {
        let (Some(chromium), Some(chromedriver)) = (installed("chromium"), installed("chromedriver")) else {
            assert!(
                std::env::var_os("REQUIRE_ALL").is_none_or(|value| value != "1"),
                "chromium and chromedriver are required (REQUIRE_ALL=1) but not installed"
            );
            eprintln!(
                "SKIPPED: chromium or chromedriver is not installed (Debian: chromium chromium-driver)"
            );
            return None;
        };
        let turn = ONE_AT_A_TIME.lock().await;
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new(chromedriver)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(driver.stdout.take().unwrap());
        let port = tokio::task::spawn_blocking(move || port_of(output)).await.unwrap();
        let flags: Vec<_> = FLAGS
            .iter()
            .map(|flag| (*flag).to_owned())
            .chain([format!("--user-data-dir={}", profile.path().display())])
            .collect();
        let capabilities = json!({
            "goog:chromeOptions": { "binary": chromium, "args": flags },
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": PATIENCE.as_millis() as u64 },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!("written as an object above") };
        let page = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("chromium starts");
        let session = page.session_id().await.unwrap().expect("the session is open");
        Some(Self { page, driver, port, session, _profile: profile, _turn: turn })
    }

    /// Waits until the script expression `condition` is true in the page, also across its reloads.
    pub async fn until(&self, condition: &str) {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             const look = () => {{
               let is = false;
               try {{ is = Boolean({condition}); }} catch {{ /* not there yet */ }}
               if (is) done(true); else setTimeout(look, 20);
             }};
             look();"
        );
        let wait = async {
            // A reload ends the script with an error; the next one sees the new page.
            while self.page.execute_async(&script, vec![]).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let text = self.run("return document.body.innerText.slice(0, 2000)").await;
            panic!("the page never became: {condition}\nit reads: {text}\nits log: {:?}", self.log().await);
        }
    }

    /// Clicks where the element is, as a mouse does, once it is there; what covers it gets the click.
    pub async fn click(&self, css: &str) {
        let locator = fantoccini::Locator::Css(css);
        for _ in 0..100 {
            self.until(&format!("document.querySelector({css:?})?.checkVisibility()")).await;
            // Away from what sticks to the window's edges.
            self.run(&format!("document.querySelector({css:?})?.scrollIntoView({{ block: 'center' }})"))
                .await;
            match async { self.page.find(locator).await?.click().await }.await {
                Ok(()) => return,
                // Its list was written anew in between.
                Err(error) if error.is_stale_element_reference() || error.is_no_such_element() => {}
                Err(error) => panic!("{css} is not to be clicked: {error}"),
            }
        }
        panic!("{css} never stayed for a click");
    }

    /// Types into whatever has the focus.
    pub async fn type_keys(&self, keys: &str) {
        let focused = self.page.active_element().await.unwrap();
        focused.send_keys(keys).await.unwrap_or_else(|error| panic!("{keys:?} is not to be typed: {error}"));
    }

    /// Runs a script in the page and returns what it returns.
    pub async fn run(&self, script: &str) -> Value {
        self.page.execute(script, vec![]).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Runs a script that calls back with its result.
    pub async fn run_async(&self, script: &str) -> Value {
        self.page.execute_async(script, vec![]).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Errors that the browser logged since the last call.
    pub async fn log(&self) -> Vec<String> {
        let entries = self.post("se/log", &json!({ "type": "browser" })).await;
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .filter(|entry| entry["level"] == "SEVERE")
            .map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Fails when the browser logged an error; `expected` are parts of those that the test itself causes. That a socket to a
    /// node failed is none of them: beside compilers a node is silent for longer than a page waits, and what the page then
    /// does is right.
    pub async fn assert_no_errors(&self, expected: &[&str]) {
        let errors: Vec<_> = self
            .log()
            .await
            .into_iter()
            .filter(|error| {
                !["WebSocket connection to"].iter().chain(expected).any(|part| error.contains(part))
            })
            .collect();
        assert!(errors.is_empty(), "the browser logged {errors:#?}");
    }

    /// A command of Chromium's own protocol, for what WebDriver cannot do.
    pub async fn devtools(&self, command: &str, params: Value) -> Value {
        self.post("goog/cdp/execute", &json!({ "cmd": command, "params": params })).await
    }

    /// Shows the page as on a device of this size, in CSS pixels.
    pub async fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Keeps a picture of the page in `target/screenshots`.
    pub async fn picture(&self, name: &str) {
        let folder = screenshots();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), self.page.screenshot().await.unwrap()).unwrap();
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let session = &self.session;
        let request =
            hyper::Request::post(format!("http://127.0.0.1:{}/session/{session}/{path}", self.port))
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(body.to_string())))
                .unwrap();
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
        let answer = client.request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert!(answer["value"]["error"].is_null(), "{path}: {answer}");
        answer["value"].clone()
    }
}

/// The program called `name`, where Debian puts it or on the path.
fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/bin")])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Reads the port that chromedriver was given, and leaves a thread that drains what else it says.
fn port_of(output: impl BufRead + Send + 'static) -> u16 {
    let mut lines = output.lines();
    let port = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.rsplit_once("successfully on port ")?.1.trim_end_matches('.').parse().ok())
        .expect("chromedriver says its port");
    std::thread::spawn(move || lines.for_each(drop));
    port
}

/// `target/screenshots`, beside the built program.
fn screenshots() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_sensorium"));
    let target = program.ancestors().find(|folder| folder.ends_with("target"));
    target.or(program.parent()).unwrap_or(Path::new(".")).join("screenshots")
}
