//! What is let in, and what is not: the pipeline goes on in any case.

use std::{process::Command, time::Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tapeline_tests::{
    live::{LiveHost, TOKEN, component, variant},
    program,
};

use super::{
    job::{Job, MAIN, NAME, ODD},
    shadow::send_all,
};

/// Header of a component, and of a core module.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

fn refusal(host: &LiveHost, query: &str, bytes: &[u8]) -> Result<String> {
    let (status, answer) = host.push("odd", query, bytes)?;
    ensure!(status == 422 && answer["type"] == "/problems/component-refused", "{status} {answer}");
    Ok(answer["detail"].as_str().unwrap_or_default().to_owned())
}

/// An unsigned number in LEB128.
fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(content.len()), content].concat()
}

/// A component with a core module whose functions take a compiler for ever: one long chain of additions each.
fn endless(functions: usize) -> Vec<u8> {
    let mut body = vec![0];
    for _ in 0..1_500_000 {
        // local.get 0, local.get 0, i64.mul, local.set 0
        body.extend([0x20, 0, 0x20, 0]);
        body.extend([0x7e, 0x21, 0]);
        if body.len() > 7_000_000 {
            break;
        }
    }
    body.extend([0x20, 0, 0x0b]);
    let body = [leb(body.len()), body].concat();
    let types = section(1, &[1, 0x60, 1, 0x7e, 1, 0x7e]);
    let declared = section(3, &[leb(functions), vec![0; functions]].concat());
    let code = section(10, &[leb(functions), body.repeat(functions)].concat());
    let module = [MODULE, &types, &declared, &code].concat();
    [COMPONENT, &section(1, &module)].concat()
}

/// A component that imports an instance of this name, without functions.
fn importing(name: &str) -> Vec<u8> {
    // type section: an instance type without declarations; import section: that name, an instance of type 0.
    let types = section(7, &[1, 0x42, 0]);
    let import = [&[1, 0][..], &leb(name.len()), name.as_bytes(), &[5, 0]].concat();
    [COMPONENT, &types, &section(10, &import)].concat()
}

#[test]
fn what_does_not_fit_is_refused_and_says_why() -> Result<()> {
    let job = Job::new(ODD, 20_000)?;
    let host = job.start("hostile")?;
    let lines = job.lines();
    let faulty = component("test/faulty")?;
    let random: Vec<u8> = (0..100_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let hostile: [(&str, Vec<u8>, &str); 9] = [
        ("nothing", Vec::new(), "it is nothing, instead of a WebAssembly component"),
        ("random bytes", random, "it is no WebAssembly"),
        ("a core module", MODULE.to_vec(), "a core module, which `wasm-tools component new`"),
        ("cut off", faulty[..faulty.len() / 2].to_vec(), "compile the component"),
        ("no world", COMPONENT.to_vec(), "the component exports nothing instead of one of tapeline:pipeline/process"),
        ("another world", component("write")?, "it is of world writer, instead of stage"),
        ("sockets", importing("wasi:sockets/tcp@0.2.0"), "it imports wasi:sockets/tcp@0.2.0, which no stage may reach"),
        ("a foreign import", importing("evil:corp/keys"), "it imports evil:corp/keys, which no stage may reach"),
        ("http", importing("wasi:http/outgoing-handler@0.2.0"), "which no stage may reach"),
    ];
    let mut chunks = lines.chunks(lines.len().div_ceil(hostile.len() + 4));
    let mut more = || -> Result<()> { chunks.next().map_or(Ok(()), |chunk| send_all(&host, chunk)) };
    for (what, bytes, said) in &hostile {
        let refused = refusal(&host, "", bytes).with_context(|| (*what).to_owned())?;
        ensure!(refused.contains(said), "{what}: {refused}");
        more()?;
    }
    // Larger than anything: refused by its announced size.
    let (status, answer) = host.push("odd", "", &vec![0; 200 << 20])?;
    ensure!(status == 413 && answer["type"] == "/problems/body-too-large", "{status} {answer}");
    more()?;
    // At its start: with the settings that it would have.
    for (fault, said) in [("trap", "is too much"), ("loop", "longer than 1s"), ("allocate", "memory")] {
        let settings = format!("%7B%22fault%22:%22{fault}%22,%22every%22:5,%22remainder%22:0,%22at_start%22:true%7D");
        let refused = refusal(&host, &format!("settings={settings}"), &faulty)?;
        ensure!(refused.contains("start the component with its settings") && refused.contains(said), "{refused}");
        more()?;
    }
    let unknown = refusal(&host, "settings=%7B%22speed%22:1%7D", &faulty)?;
    ensure!(unknown.contains("speed"), "{unknown}");
    let (status, answer) = host.push("nobody", "", &faulty)?;
    ensure!(status == 404, "{status} {answer}");
    let status = host.status("odd")?;
    ensure!(status["deployment"]["versions"].as_array().map(Vec::len) == Some(1), "{status}");
    chunks.try_for_each(|chunk| send_all(&host, chunk))?;
    job.finish(host)
}

#[test]
fn a_compiler_that_takes_too_much_is_stopped() -> Result<()> {
    let quick = ODD.replace("compile_time = \"20s\"", "compile_time = \"2s\"");
    let job = Job::new(&quick, 2_000)?;
    let host = job.start("endless")?;
    let began = Instant::now();
    let refused = refusal(&host, "", &endless(8))?;
    ensure!(refused.contains("it took longer than 2s"), "{refused}");
    ensure!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    send_all(&host, &job.lines())?;
    job.finish(host)?;

    let small = ODD.replace("compile_time = \"20s\"", "compile_time = \"20s\"\ncompile_memory_mib = 128");
    let job = Job::new(&small, 2_000)?;
    let host = job.start("hungry")?;
    let refused = refusal(&host, "", &endless(8))?;
    ensure!(refused.contains("it may use 128 MiB"), "{refused}");
    send_all(&host, &job.lines())?;
    job.finish(host)
}

#[test]
fn whoever_wants_more_waits_for_approval() -> Result<()> {
    let job = Job::new(ODD, 2_000)?;
    let host = job.start("wants")?;
    let faulty = component("test/faulty")?;
    let wants = [
        ("memory_mib=128", "memory: 128 MiB instead of 64 MiB"),
        ("time_per_batch=3s", "time per batch: 3s instead of 1s"),
        (
            "settings=%7B%22fault%22:%22trap%22,%22every%22:1000000000000,%22remainder%22:0%7D",
            "setting fault: \"trap\" instead of \"reject\"",
        ),
    ];
    for (query, want) in wants {
        let (status, answer) = host.push("odd", query, &faulty)?;
        ensure!(status == 201 && answer["standing"] == "pending", "{status} {answer}");
        ensure!(answer["wants"] == serde_json::json!([want]), "{answer}");
        ensure!(host.status("odd")?["deployment"]["live"] == 1);
    }
    // Less is not more.
    let less = host.push_version("odd", "memory_mib=32&time_per_batch=900ms", &faulty)?;
    host.wait_until_live("odd", less)?;
    let data = host.data.to_str().context("a path of text")?;
    let shown = program::output(&["stage", "show", "odd", "--data", data])?;
    ensure!(shown.contains("waits for approval: version 3") && shown.contains("memory: 128 MiB"), "{shown}");
    let approve = Command::new(program::path())
        .args(["stage", "approve", "odd", "2", "--why", "it needs it", "--data", data])
        .env("TAPELINE_ADMIN_TOKEN", TOKEN)
        .output()?;
    ensure!(approve.status.success(), "{}", String::from_utf8_lossy(&approve.stderr));
    host.wait_until_live("odd", 2)?;
    let (status, answer) = host.post("/stages/odd/approve?version=2")?;
    ensure!(status == 409, "{status} {answer}");
    let log = host.status("odd")?["deployment"]["log"].clone();
    let is_approved = |logged: &Value| logged["what"] == "approved" && logged["why"] == "it needs it";
    ensure!(log.as_array().is_some_and(|log| log.iter().any(is_approved)), "{log}");
    send_all(&host, &job.lines())?;
    job.finish(host)
}

#[test]
fn only_signed_components_are_let_in_where_keys_are_trusted() -> Result<()> {
    let keys = minisign::KeyPair::generate_unencrypted_keypair()?;
    let strangers = minisign::KeyPair::generate_unencrypted_keypair()?;
    let signed = ODD.replace("[swap]", &format!("[swap]\ntrusted_keys = [\"{}\"]", keys.pk.to_base64()));
    let job = Job::new(&signed, 2_000)?;
    let host = job.start("signed")?;
    let bytes = variant(&component("test/faulty")?, "signed");
    let sign = |keys: &minisign::KeyPair, bytes: &[u8]| -> Result<String> {
        Ok(minisign::sign(None, &keys.sk, bytes, None, None)?.into_string())
    };
    let file = job.data("stage.wasm");
    std::fs::write(&file, &bytes)?;
    let push = || -> Result<(i32, String)> {
        let push = Command::new(program::path())
            .args(["stage", "push", "odd"])
            .arg(&file)
            .args(["--data", host.data.to_str().context("a path of text")?])
            .env("TAPELINE_ADMIN_TOKEN", TOKEN)
            .output()?;
        Ok((push.status.code().unwrap_or(-1), String::from_utf8_lossy(&push.stderr).into_owned()))
    };
    let (code, said) = push()?;
    ensure!(code == 2 && said.contains("it is not signed, instead of signed by one of the 1 keys"), "{code} {said}");
    let signature = file.with_extension("wasm.minisig");
    for wrong in [sign(&strangers, &bytes)?, sign(&keys, b"other bytes")?] {
        std::fs::write(&signature, wrong)?;
        let (code, said) = push()?;
        ensure!(code == 2 && said.contains("signed by another key, or for other bytes"), "{code} {said}");
    }
    std::fs::write(&signature, sign(&keys, &bytes)?)?;
    let (code, said) = push()?;
    ensure!(code == 0, "{code} {said}");
    host.wait_until_live("odd", 2)?;
    ensure!(host.status("odd")?["deployment"]["versions"][1]["signed_by"] == keys.pk.to_base64());
    send_all(&host, &job.lines())?;
    job.finish(host)
}

#[test]
fn versions_are_kept_until_they_are_pruned() -> Result<()> {
    let job = Job::new(MAIN, 2_000)?;
    let host = job.start("pruned")?;
    let bytes = component("enrich")?;
    for at in 0..6 {
        let version = host.push_version("enrich", "", &variant(&bytes, &format!("v{at}")))?;
        host.wait_until_live("enrich", version)?;
    }
    let (status, answer) = host.post("/stages/enrich/prune?keep=2")?;
    ensure!(status == 200, "{status} {answer}");
    // Live, the one before it, and the first, which has proven itself and would be gone back to.
    ensure!(answer["versions"] == serde_json::json!([2, 3, 4, 5]), "{answer}");
    let (status, answer) = host.post("/stages/enrich/rollback?version=3")?;
    ensure!(status == 404 && answer["type"] == "/problems/unknown-version", "{status} {answer}");
    for chunk in job.lines().chunks(500) {
        host.send(NAME, chunk)?;
    }
    job.finish(host)
}
