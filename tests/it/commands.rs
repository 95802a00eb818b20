//! The command line: one clear message for each thing that can be wrong, exit codes that scripts rely on, and help that
//! shows an example.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use stepgate::dev::bundle;

use crate::rig::Rig;

pub(crate) fn stepgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stepgate"));
    command.args(arguments).stdin(Stdio::null()).env_remove("STEPGATE_LOG").env("RUST_BACKTRACE", "0");
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    stepgate(arguments).output().unwrap()
}

/// A directory with a configuration that can be served on free ports; `change` edits its text.
fn home(change: impl FnOnce(String) -> String) -> (tempfile::TempDir, String) {
    let home = tempfile::tempdir().unwrap();
    let file = bundle::unpack(home.path()).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("listen: 127.0.0.1:8080", "listen: 127.0.0.1:0").replace("127.0.0.1:9090", "127.0.0.1:0");
    fs::write(&file, change(text)).unwrap();
    (home, file.to_str().unwrap().to_owned())
}

/// The message of a command that must fail with `code`: on standard error, without a panic.
#[track_caller]
fn complaint(output: &Output, code: i32) -> String {
    let message = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(!message.contains("panicked"), "{message}");
    assert!(!message.trim().is_empty(), "it says why");
    message
}

#[test]
fn a_gateway_that_cannot_start_says_why() {
    let serve = |file: &str| run(&["serve", "--config", file]);

    let message = complaint(&serve("/nowhere/stepgate.yaml"), 4);
    assert!(message.contains("/nowhere/stepgate.yaml") && message.contains("cannot read"), "{message}");

    let (_home, file) = home(|text| text.replace("policies:", "polices:"));
    let message = complaint(&serve(&file), 4);
    assert!(message.contains("dev.yaml:") && message.contains("polices"), "{message}");

    let (dir, file) = home(|text| text);
    fs::write(dir.path().join("policies/bad.yaml"), "deny:\n  - { name: x, container: shop }\n").unwrap();
    let message = complaint(&serve(&file), 4);
    assert!(message.contains("bad.yaml:2:"), "{message}");

    let (dir, file) = home(|text| text);
    fs::remove_dir_all(dir.path().join("policies")).unwrap();
    let message = complaint(&serve(&file), 4);
    assert!(message.contains("policies") && message.contains("no directory"), "{message}");

    let (dir, file) = home(|text| text);
    fs::remove_file(dir.path().join("config/emulator-account-key")).unwrap();
    let message = complaint(&serve(&file), 4);
    assert!(message.contains("emulator-account-key") && message.contains("cannot read"), "{message}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let (_home, file) = home(|text| text.replacen("listen: 127.0.0.1:0", &format!("listen: {port}"), 1));
    let message = complaint(&serve(&file), 1);
    assert!(message.contains(&port) && message.contains("`listen`"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");

    let (dir, file) = home(|text| text);
    fs::create_dir_all(dir.path().join(".stepgate")).unwrap();
    fs::write(dir.path().join(".stepgate/audit"), "not a directory").unwrap();
    let message = complaint(&serve(&file), 1);
    assert!(message.contains(".stepgate/audit"), "{message}");
}

#[test]
fn wrong_usage_is_2_and_help_shows_an_example() {
    for arguments in
        [&["serve"][..], &["nonsense"], &["audit", "verify"], &["policy", "who-can", "items/explode", "a/b"]]
    {
        complaint(&run(arguments), 2);
    }
    for command in [
        "",
        "serve",
        "dev",
        "dev cosmos",
        "dev issuer",
        "dev token",
        "demo",
        "check",
        "policy test",
        "policy explain",
        "policy who-can",
        "policy diff",
        "policy matrix",
        "policy schema",
        "asl lint",
        "asl grants",
        "asl new",
        "asl rules",
        "config schema",
        "audit verify",
        "audit trace",
        "audit tail",
        "audit prove",
        "audit check",
        "completions",
    ] {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let output = run(&arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(text.contains("Example"), "`stepgate {command} --help` has no example:\n{text}");
    }
    assert_eq!(
        String::from_utf8(run(&["--version"]).stdout).unwrap().trim(),
        format!("stepgate {}", env!("CARGO_PKG_VERSION"))
    );
    assert!(String::from_utf8(run(&["completions", "bash"]).stdout).unwrap().contains("who-can"));
}

#[test]
fn check_reports_every_problem_at_once() {
    let (dir, file) = home(|text| {
        text.replace("audiences: [stepgate]", "audiences: []")
            .replace("lifetime: 1h", "lifetime: 5m")
            .replace("endpoint: http://127.0.0.1:8081/", "endpoint: http://account.documents.azure.com/")
    });
    fs::write(dir.path().join("policies/bad.yaml"), "deny:\n  - { name: x, container: shop }\n").unwrap();
    let output = run(&["check", "--config", &file, "--format", "json"]);
    assert_eq!(output.status.code(), Some(4));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    for text in ["no audience", "cannot live that long", "plain HTTP off loopback", "missing field `operations`"] {
        let found = findings.iter().find(|finding| finding["message"].as_str().unwrap().contains(text));
        let found = found.unwrap_or_else(|| panic!("nothing about `{text}` in {report:#}"));
        assert!(found["line"].as_u64() > Some(0) && found["mend"].is_string(), "{found}");
    }
}

#[test]
fn warnings_count_only_when_they_are_told_to() {
    let (dir, file) = home(|text| text);
    let role = "roles:\n  unused:\n    grants:\n      - { container: shop/orders, operations: [items/read] }\n";
    fs::write(dir.path().join("policies/unused.yaml"), role).unwrap();
    let output = run(&["check", "--config", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unused"));
    assert_eq!(run(&["check", "--config", &file, "--deny-warnings"]).status.code(), Some(4));
}

#[test]
fn policies_are_tested_explained_and_compared() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let policies = root.join("policies").to_str().unwrap().to_owned();
    let json = |arguments: &[&str], code: i32| -> Value {
        let output = run(&[arguments, &["--format", "json"]].concat());
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let tested = json(&["policy", "test", &policies], 0);
    assert_eq!(tested["failed"], 0);
    assert!(tested["passed"].as_u64() > Some(10) && tested["cases"].is_array());

    let dir = tempfile::tempdir().unwrap();
    let request = |client: &str| {
        let file = dir.path().join(format!("{client}.yaml"));
        let when = "when: { operation: items/delete, container: shop/orders, partition_key: [t1] }";
        fs::write(
            &file,
            format!("given: {{ issuer: local, claims: {{ client_id: {client}, tenant: t1 }} }}\n{when}\n"),
        )
        .unwrap();
        file.to_str().unwrap().to_owned()
    };
    let allowed = json(&["policy", "explain", "--policies", &policies, "--request", &request("fulfilment")], 0);
    assert_eq!(allowed["decision"], "allow");
    let denied = json(&["policy", "explain", "--policies", &policies, "--request", &request("auditor")], 3);
    assert_eq!(denied["decision"], "deny");
    assert!(!denied["near_misses"].as_array().unwrap().is_empty());

    let who = json(&["policy", "who-can", "items/delete", "shop/orders", "--policies", &policies], 0);
    assert_eq!(who["workloads"].as_array().unwrap().len(), 1);
    assert_eq!(who["workloads"][0]["claims"]["client_id"], "fulfilment");

    let wider = dir.path().join("wider");
    fs::create_dir(&wider).unwrap();
    for file in ["shop.yaml", "finance.yaml"] {
        let text = fs::read_to_string(root.join("policies").join(file)).unwrap();
        let text = text
            .replace("operations: [items/read, query, feed]", "operations: [items/read, query, feed, items/delete]");
        fs::write(wider.join(file), text).unwrap();
    }
    let wider = wider.to_str().unwrap();
    assert_eq!(run(&["policy", "diff", &policies, wider]).status.code(), Some(0));
    assert_eq!(run(&["policy", "diff", &policies, wider, "--fail-on-widening"]).status.code(), Some(4));
    assert_eq!(run(&["policy", "diff", wider, &policies, "--fail-on-widening"]).status.code(), Some(0));

    let failing = dir.path().join("failing");
    fs::create_dir(&failing).unwrap();
    fs::copy(root.join("policies/shop.yaml"), failing.join("shop.yaml")).unwrap();
    let case = "cases:\n  - name: wrong\n    given: { issuer: local, claims: { client_id: auditor } }\n    \
        when: { operation: items/delete, container: shop/orders, partition_key: [t1] }\n    then: allow\n";
    fs::write(failing.join("wrong.test.yaml"), case).unwrap();
    let output = run(&["policy", "test", failing.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("FAILED  wrong"), "{output:?}");
}

#[tokio::test]
async fn an_audit_log_that_was_changed_does_not_verify() {
    let mut rig = Rig::start().await;
    let item = "/dbs/shop/colls/orders/docs/o-1001";
    rig.task("fulfilment", "GET", item).send().await.expect(200);
    rig.task("fulfilment", "GET", item).partition("t2").send().await.expect(403);
    rig.stop().await;
    let log = rig.log();
    let dir = log.to_str().unwrap();
    let verify = || {
        let output = run(&["audit", "verify", dir, "--format", "json"]);
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (code, report) = verify();
    assert_eq!((code, &report["ok"], &report["records"]), (Some(0), &Value::Bool(true), &2.into()));
    assert_eq!(report["first_bad"], Value::Null);

    let trace = run(&["audit", "trace", "run-1", "--dir", dir]);
    let text = String::from_utf8(trace.stdout).unwrap();
    assert!(text.contains("SaveOrder") && text.contains("items/read") && text.contains("deny"), "{text}");
    let tail = run(&["audit", "tail", dir, "--decision", "deny"]);
    assert_eq!(String::from_utf8(tail.stdout).unwrap().lines().count(), 1);

    let request = rig.records()[0].entry.request_id.to_string();
    let proof = run(&["audit", "prove", &request, "--dir", dir]);
    let kept = tempfile::tempdir().unwrap();
    let (file, key) = (kept.path().join("proof.json"), log.join("checkpoint.pub"));
    let check = |proof: &[u8]| {
        fs::write(&file, proof).unwrap();
        let arguments = ["audit", "check", file.to_str().unwrap(), "--public-key", key.to_str().unwrap()];
        let output = run(&arguments);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let proven = format!("ok: 1 records of request {request} are in a log of 2 signed records\n");
    assert_eq!(check(&proof.stdout), (Some(0), proven));
    let lie = String::from_utf8(proof.stdout).unwrap().replacen("\\\"allow\\\"", "\\\"deny\\\"", 1);
    assert_eq!(check(lie.as_bytes()).0, Some(5));
    assert_eq!(run(&["audit", "verify", dir, "--anchor", dir]).status.code(), Some(0));

    let notes = fs::read_dir(log.join("readings")).unwrap().count();
    assert_eq!(notes, 3, "trace, tail and prove have left a note each, verify and check none");

    let segment = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.into_iter().find(|file| file.extension().is_some_and(|ending| ending == "jsonl")).unwrap();
    let text = fs::read_to_string(&segment).unwrap();
    fs::write(&segment, text.replacen("\"deny\"", "\"allow\"", 1)).unwrap();
    let (code, report) = verify();
    assert_eq!((code, &report["ok"]), (Some(5), &Value::Bool(false)));
    assert_eq!((&report["first_bad"]["line"], &report["first_bad"]["sequence"]), (&2.into(), &2.into()));
}

#[tokio::test]
async fn a_log_is_exported_and_that_is_in_the_log_too() {
    let rig = Rig::start().await;
    let item = "/dbs/shop/colls/orders/docs/o-1001";
    rig.task("fulfilment", "GET", item).send().await.expect(200);
    let log = rig.log();
    let export = |arguments: &[&str]| {
        let output = run(&[&["audit", "export", log.to_str().unwrap()], arguments].concat());
        (output.status.code(), output.stdout, String::from_utf8(output.stderr).unwrap())
    };
    let (code, plain, told) = export(&["--since", "1h", "--compress", "none"]);
    assert!(code == Some(0) && told.contains(" records from "), "{told}");
    // The note of this very export may be in it already.
    let plain = String::from_utf8(plain).unwrap();
    assert!(plain.contains("items/read"), "{plain}");
    assert!(fs::read_dir(&log).unwrap().any(|file| {
        let file = file.unwrap().path();
        file.extension().is_some_and(|ending| ending == "jsonl")
            && fs::read_to_string(file).unwrap().starts_with(&plain)
    }));

    let file = rig.file("export.jsonl.gz");
    let (code, nothing, _) = export(&["--since", "1h", "--output", file.to_str().unwrap()]);
    assert_eq!((code, nothing.len()), (Some(0), 0));
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(fs::File::open(file).unwrap()).read_to_string(&mut unpacked).unwrap();
    assert!(unpacked.starts_with(&plain), "{unpacked}");
    assert_eq!(export(&["--since", "2020-01-01T00:00:00Z", "--until", "2021-01-01T00:00:00Z"]).0, Some(0));
    let (code, _, told) = export(&["--since", "yesterday"]);
    assert!(code == Some(2) && told.contains("24h or 7d"), "{told}");

    let readings = crate::rig::soon(async || {
        let readings = rig.records().into_iter().filter_map(|record| record.entry.reading);
        Some(readings.collect::<Vec<_>>()).filter(|readings| readings.len() == 3)
    })
    .await;
    assert!(readings.iter().all(|reading| reading.command == "export"), "{readings:?}");
}

/// A running `stepgate`, ended when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(arguments: &[&str]) -> (Self, Value) {
        let mut child = stepgate(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let running = Self(child);
        (running, serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON line: {line}")))
    }

    fn signal(&self, name: &str) {
        let killed = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }
}

#[test]
fn serve_says_when_it_is_ready_and_stops_when_told() {
    let (_home, file) = home(|text| text);
    let (mut running, ready) = Running::start(&["serve", "--config", &file, "--format", "json"]);
    assert_eq!(ready["ready"], true);
    for listener in ["gateway", "admin"] {
        let url = ready[listener].as_str().unwrap();
        std::net::TcpStream::connect(url.trim_start_matches("http://")).unwrap();
        assert!(!url.ends_with(":0"), "the bound port is told");
    }
    running.signal("HUP");
    running.signal("TERM");
    let mut log = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(0), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn dev_brings_everything_and_a_token_that_works() {
    let (home, file) =
        home(|text| text.replace("127.0.0.1:8090", "127.0.0.1:0").replace("127.0.0.1:8081", "127.0.0.1:0"));
    let (mut running, ready) = Running::start(&["dev", "--config", &file, "--format", "json"]);
    for address in ["gateway", "admin", "issuer", "cosmos", "token", "admin_token", "audit"] {
        assert!(ready[address].is_string(), "{address} is missing in {ready}");
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let status = runtime.block_on(async {
        let transport = stepgate::transport::Transport::new(None).unwrap();
        let url = format!("{}/dbs/shop/colls/orders/docs/o-1001", ready["gateway"].as_str().unwrap());
        let request =
            http::Request::get(url).header("authorization", format!("Bearer {}", ready["token"].as_str().unwrap()));
        let request = request.body(http_body_util::Full::default()).unwrap();
        transport.exchange(request, 1 << 20, crate::rig::PATIENCE).await.unwrap().status()
    });
    assert_eq!(status, 200);
    running.signal("INT");
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
    let log: PathBuf = home.path().join(".stepgate/audit");
    assert_eq!(run(&["audit", "verify", log.to_str().unwrap()]).status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_by_the_exit_code() {
    let rig = Rig::start().await;
    let admin = rig.server.admin_url();
    for question in [&[][..], &["--live"], &["--started"]] {
        let output = run(&[&["health", "--admin", &admin], question].concat());
        assert_eq!(output.status.code(), Some(0), "{question:?}: {output:?}");
        assert!(!output.stdout.is_empty());
    }
    let unready = Rig::unready(|raw| raw.issuers[0].url = "http://127.0.0.1:1".into()).await;
    let admin = unready.server.admin_url();
    assert_eq!(run(&["health", "--admin", &admin, "--live"]).status.code(), Some(0));
    assert!(complaint(&run(&["health", "--admin", &admin]), 1).contains("issuer local"));
    assert!(complaint(&run(&["health", "--admin", &admin, "--started"]), 1).contains("starting"));
    assert!(complaint(&run(&["health", "--admin", "http://127.0.0.1:1"]), 1).contains("cannot connect"));
}
