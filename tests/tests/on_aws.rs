//! What `tapeline` hands over to `tapeline-aws`, for which a program stands in that writes down what it is told. What that one
//! does is tested where a local AWS is (`tests/aws`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use tapeline_tests::program;
use tempfile::TempDir;

/// A folder with the program, and what stands in for the other one beside it.
struct Installed(TempDir);

impl Installed {
    /// What stands in says a word, complains, and ends with this code.
    fn new(code: u8) -> Self {
        let installed = Self(TempDir::new().unwrap());
        // A link that is followed would lead to the other one that is built.
        let program = installed.path().join("tapeline");
        fs::hard_link(program::path(), &program).or_else(|_| fs::copy(program::path(), &program).map(drop)).unwrap();
        let script = format!(
            "#!/bin/sh\ncd \"$(dirname \"$0\")\"\nprintf '%s\\n' \"$@\" > told\n\
             for word; do case $word in *.cwasm) cp \"$word\" . ;; esac; done\necho done\necho why >&2\nexit {code}\n"
        );
        let stand_in = installed.path().join("tapeline-aws");
        fs::write(&stand_in, script).unwrap();
        fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
        installed
    }

    /// Lets what stands in write these lines, and say nothing else.
    fn writes(&self, lines: &[impl AsRef<str>]) {
        let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
        fs::write(self.path().join("lines"), lines.join("\n")).unwrap();
        let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\nprintf '%s\\n' \"$@\" > told\ncat lines\n";
        fs::write(self.path().join("tapeline-aws"), script).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, words: &str) -> Output {
        Command::new(self.path().join("tapeline")).args(words.split(' ')).current_dir(self.path()).output().unwrap()
    }

    /// What the other one was told last.
    fn told(&self) -> String {
        fs::read_to_string(self.path().join("told")).unwrap().trim_end().replace('\n', " ")
    }
}

#[test]
fn what_is_told_is_handed_over() {
    let installed = Installed::new(0);
    for (words, told) in [
        ("stage list --aws s", "stage list s --format=text"),
        ("stage list --aws s --format json", "stage list s --format=json"),
        ("stage rollback alarm --aws s", "stage rollback s alarm --why="),
        ("stage rollback alarm --aws s --to deployed --why x", "stage rollback s alarm --why=x --to=deployed"),
        ("redrive --aws s --dry-run", "redrive s --wait=30s --dry-run"),
        ("redrive --aws s --function dedup --wait 0s", "redrive s --wait=0s --function=dedup"),
    ] {
        let output = installed.run(words);
        assert_eq!(
            (output.status.code(), &output.stdout[..], &output.stderr[..]),
            (Some(0), &b"done\n"[..], &b"why\n"[..])
        );
        assert_eq!(installed.told(), told);
    }
}

#[test]
fn what_is_pushed_is_what_compile_makes() {
    let installed = Installed::new(0);
    let component = program::components().join("alarm.wasm");
    let output = installed.run(&format!("stage push alarm {} --aws s --why x", component.display()));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let told = installed.told();
    assert!(told.starts_with("stage push s alarm --compiled /"), "{told}");
    assert!(
        told.ends_with("--architecture=x86_64 --why=x") || told.ends_with("--architecture=arm64 --why=x"),
        "{told}"
    );
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
    let compile = format!("compile --architecture {architecture} --into compiled {}", component.display());
    let compiled = installed.run(&compile);
    let compiled = installed.path().join(String::from_utf8(compiled.stdout).unwrap().trim_end());
    let pushed = installed.path().join(compiled.file_name().unwrap());
    assert_eq!(fs::read(pushed).unwrap(), fs::read(compiled).unwrap());
}

#[test]
fn what_it_reads_is_written_as_from_a_data_folder() {
    let installed = Installed::new(0);
    let counts = |dead: u64| {
        format!(r#"{{"entered":3,"out":2,"duplicate":0,"late":0,"dead":{dead},"dropped":{{"ping":1}},"derived":7}}"#)
    };
    let line = |symbol: &str, day: &str, dead| {
        let counts = counts(dead);
        format!(r#"{{"stage_index":0,"stage":"fetch","symbol":"{symbol}","day":{day},"counts":{counts}}}"#)
    };
    installed.writes(&[line("A", r#""2024-08-08""#, 0), line("", "null", 0)]);
    let output = installed.run("ledger --aws s --symbol A --format csv");
    assert_eq!(installed.told(), "ledger s --symbol=A");
    let expected = "stage,symbol,day,in,out,duplicate,late,dropped,dead,derived,rules,balances\n\
                    fetch,A,2024-08-08,3,2,0,0,1,0,7,ping 1,true\nfetch,,,3,2,0,0,1,0,7,ping 1,true\n";
    assert_eq!((output.status.code(), String::from_utf8(output.stdout).unwrap().as_str()), (Some(0), expected));
    installed.writes(&[line("A", "null", 1)]);
    let output = installed.run("ledger --aws s --format csv");
    assert_eq!(output.status.code(), Some(1), "it does not balance");

    installed.writes(&[r#"{"id":7,"price":1.5,"symbol":"A"}"#, r#"{"id":null,"price":2,"symbol":"A","more":true}"#]);
    let output = installed.run("query trades --aws s --symbol A --from 2024-08-08 --limit 5 --format csv");
    assert_eq!(installed.told(), "rows s trades --symbol=A --from=2024-08-08T00:00:00.000000000Z --limit=5");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "id,more,price,symbol\n7,,1.5,A\n,true,2,A\n");
    for (format, expected) in [("csv", ""), ("table", ""), ("json", "[]\n")] {
        installed.writes(&[""; 0]);
        let output = installed.run(&format!("query trades --aws s --format {format}"));
        assert_eq!((output.status.code(), String::from_utf8(output.stdout).unwrap().as_str()), (Some(0), expected));
    }
    installed.writes(&["what"]);
    let output = installed.run("query trades --aws s --format csv");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("\"what\""), "{said}");
}

#[test]
fn what_it_fails_with_is_what_the_program_ends_with() {
    for code in [1, 2] {
        let output = Installed::new(code).run("stage list --aws s");
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(code.into()), &b"why\n"[..]));
    }
    let installed = Installed::new(0);
    fs::write(installed.path().join("none.wasm"), "none").unwrap();
    for (words, says) in [
        ("stage push alarm none.wasm --aws s", "compile none.wasm"),
        ("stage push alarm gone.wasm --aws s", "compile gone.wasm"),
    ] {
        let output = installed.run(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(says), "{words}: {said}");
        assert!(!installed.path().join("told").exists(), "{words} was handed over");
    }
}
