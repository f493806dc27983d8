//! The programs, run as they are: what they print where, how they end, and what they leave.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kvs::{AnyEngine, KvStore, KvsEngine, Options};
use socket2::{Domain, Socket, Type};

const KVS: &str = env!("CARGO_BIN_EXE_kvs");
const SERVER: &str = env!("CARGO_BIN_EXE_kvs-server");
const CLIENT: &str = env!("CARGO_BIN_EXE_kvs-client");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Far longer than a program takes; reached only by one that hangs.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn version_is_name_and_number() {
    for (program, name) in [(KVS, "kvs"), (SERVER, "kvs-server"), (CLIENT, "kvs-client")] {
        for flag in ["-V", "--version"] {
            check(program, Path::new("."), &[flag], 0, &format!("{name} {VERSION}\n"), "");
        }
    }
}

#[test]
fn help_fits_a_screen_and_shows_an_example() {
    for (program, default) in [(KVS, "[default: .]"), (SERVER, ":4000]"), (CLIENT, ":4000]")] {
        for flag in ["-h", "--help"] {
            let help = text(run(program, Path::new("."), &[flag]).stdout);
            assert!(help.lines().count() <= 24, "{} lines:\n{help}", help.lines().count());
            for line in help.lines() {
                assert!(line.len() <= 80, "{} columns: {line}", line.len());
            }
            for part in ["Usage:", "\nExample:\n  kvs", default] {
                assert!(help.contains(part), "no {part:?} in:\n{help}");
            }
        }
    }
}

#[test]
fn wrong_usage_ends_with_2_and_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (program, arguments) in [
        (KVS, &[][..]),
        (KVS, &["unknown"]),
        (KVS, &["set"]),
        (KVS, &["set", "k"]),
        (KVS, &["set", "k", "v", "more"]),
        (KVS, &["get"]),
        (KVS, &["get", "k", "more"]),
        (KVS, &["rm"]),
        (KVS, &["rm", "k", "more"]),
        (KVS, &["scan", "prefix", "more"]),
        (KVS, &["scan", "prefix", "--from", "k"]),
        (KVS, &["scan", "prefix", "--to", "k"]),
        (KVS, &["scan", "--from"]),
        (KVS, &["--addr", "127.0.0.1:1", "get", "k"]),
        (CLIENT, &[]),
        (CLIENT, &["unknown"]),
        (CLIENT, &["set", "k"]),
        (CLIENT, &["get"]),
        (CLIENT, &["get", "k", "--addr", "not-an-address"]),
        (CLIENT, &["get", "k", "--unknown"]),
        (SERVER, &["--addr", "127.0.0.1"]),
        (SERVER, &["--engine", "bolt"]),
        (SERVER, &["--durability", "interval"]),
        (SERVER, &["--durability", "interval:0"]),
        (SERVER, &["--durability", "interval:soon"]),
        (SERVER, &["--durability", "always"]),
        (SERVER, &["--threads", "0"]),
        (SERVER, &["--threads", "1025"]),
        (SERVER, &["--pool", "swimming"]),
        (SERVER, &["--connections-max", "0"]),
        (SERVER, &["one", "two"]),
    ] {
        let output = run(program, dir.path(), arguments);
        let said = text(output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains("Usage:") || said.contains("--help"), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "something was made");
}

#[test]
fn kvs_finds_nothing_where_there_is_no_store_and_makes_none() {
    let dir = tempfile::tempdir().unwrap();
    check(KVS, dir.path(), &["get", "k"], 0, "Key not found\n", "");
    check(KVS, dir.path(), &["rm", "k"], 1, "", "Key not found\n");
    check(KVS, dir.path(), &["scan"], 0, "", "");
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "something was made");
}

#[test]
fn kvs_sets_and_tells_how_long_a_key_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let get_ttl = |key: &str| text(run(KVS, dir.path(), &["get", "--ttl-ms", key]).stdout);
    assert_eq!(get_ttl("k"), "Key not found\n");
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "something was made");
    check(KVS, dir.path(), &["set", "k", "v", "--ttl-ms", "3600000"], 0, "", "");
    let left_ms: u64 = get_ttl("k").trim_end().parse().unwrap();
    assert!((3_000_000..=3_600_000).contains(&left_ms), "{left_ms}");
    check(KVS, dir.path(), &["get", "k"], 0, "v\n", "");
    check(KVS, dir.path(), &["set", "k", "v"], 0, "", "");
    assert_eq!(get_ttl("k"), "never\n");
    check(KVS, dir.path(), &["set", "k", "v", "--ttl-ms", "0"], 0, "", "");
    assert_eq!(get_ttl("k"), "Key not found\n");
    check(KVS, dir.path(), &["get", "k"], 0, "Key not found\n", "");
    check(KVS, dir.path(), &["rm", "k"], 1, "", "Key not found\n");
    check(KVS, dir.path(), &["set", "k", "v", "--ttl-ms", &u64::MAX.to_string()], 0, "", "");
    check(KVS, dir.path(), &["get", "k"], 0, "v\n", "");
}

#[test]
fn kvs_scan_prints_a_range_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open(dir.path()).unwrap();
    for (key, value) in [("b", "2"), ("a", "1"), ("ba", ""), ("c", "3")] {
        store.set_bytes(key.as_bytes(), value.as_bytes()).unwrap();
    }
    store.close().unwrap();
    for (arguments, printed) in [
        (&["scan"][..], "a\t1\nb\t2\nba\t\nc\t3\n"),
        (&["scan", ""], "a\t1\nb\t2\nba\t\nc\t3\n"),
        (&["scan", "b"], "b\t2\nba\t\n"),
        (&["scan", "--from", "b"], "b\t2\nba\t\nc\t3\n"),
        (&["scan", "--to", "b"], "a\t1\n"),
        (&["scan", "--from", "b", "--to", "c", "--reverse"], "ba\t\nb\t2\n"),
        (&["scan", "--from", "c", "--to", "a"], ""),
        (&["scan", "--keys-only", "b"], "b\nba\n"),
        (
            &["scan", "--json", "b"],
            "{\"key\":\"b\",\"value\":\"2\"}\n{\"key\":\"ba\",\"value\":\"\"}\n",
        ),
        (&["scan", "--json", "--keys-only", "c"], "{\"key\":\"c\"}\n"),
    ] {
        check(KVS, dir.path(), arguments, 0, printed, "");
    }
    assert!(text(run(KVS, dir.path(), &["scan", "--help"]).stdout).lines().count() <= 24);
}

/// Any byte can be told again from both forms.
#[test]
fn kvs_scan_keeps_every_byte_on_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open(dir.path()).unwrap();
    store.set_bytes("\u{e9}".as_bytes(), b"tab\t line\n\r back\\x").unwrap();
    store.set_bytes(b"\xFF", "\0\u{7f}\u{85}".as_bytes()).unwrap();
    store.set_bytes(b"\xFF\xFE", b"a\xC3").unwrap();
    store.set_bytes(b"\xFF\xFE\xFD", b"").unwrap();
    store.close().unwrap();
    let plain = "\u{e9}\ttab\\t line\\n\\r back\\\\x\n\
                 \\xff\t\\x00\\x7f\\xc2\\x85\n\
                 \\xff\\xfe\ta\\xc3\n\
                 \\xff\\xfe\\xfd\t\n";
    check(KVS, dir.path(), &["scan"], 0, plain, "");
    let json = "{\"key\":\"\u{e9}\",\"value\":\"tab\\t line\\n\\r back\\\\x\"}\n\
                {\"key_b64\":\"/w==\",\"value\":\"\\u0000\u{7f}\u{85}\"}\n\
                {\"key_b64\":\"//4=\",\"value_b64\":\"YcM=\"}\n\
                {\"key_b64\":\"//79\",\"value\":\"\"}\n";
    check(KVS, dir.path(), &["scan", "--json"], 0, json, "");
}

/// 64 MiB of values through 24 MiB of memory.
#[test]
fn kvs_scan_needs_little_memory() {
    let dir = store_of_a_mebibyte_a_key("kvs");
    assert_eq!(shell(dir.path(), "ulimit -d 24576; \"$0\" scan | wc -l").trim(), "64");
}

/// The same, as text and back.
#[test]
fn kvs_dump_and_load_need_little_memory() {
    let dir = store_of_a_mebibyte_a_key("kvs");
    let script = "ulimit -d 24576; \"$0\" dump | \"$0\" --dir copy load";
    assert_eq!(shell(dir.path(), script), "writes          64\n");
}

#[test]
fn kvs_ends_well_when_the_reader_of_its_lines_has_had_enough() {
    let check_head = |dir: &Path, command: &str, first: &str| {
        let count = first.len();
        let script = format!("{{ \"$0\" {command}; echo $? > code; }} | head -c {count}; cat code");
        assert_eq!(shell(dir, &script), format!("{first}0\n"), "{command}");
    };
    for engine in kvs::ENGINE_NAMES {
        let dir = store_of_a_mebibyte_a_key(engine);
        check_head(dir.path(), "scan --reverse", "163\t");
        check_head(dir.path(), "dump", "{\"key\":\"1");
    }
    let dir = store_of_a_mebibyte_a_key("kvs");
    check_head(dir.path(), "log --values", "{\"file\":\"seg-");
}

/// `script` gives it a terminal. What is done sooner, or not looked at, shows nothing: every other
/// test of this file says so.
#[test]
fn work_that_lasts_shows_a_bar_on_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("line"), b"{\"key\":\"k\",\"value\":\"v\"}\n").unwrap();
    let loading = format!("(sleep 0.8; cat line; sleep 0.2; cat line) | {KVS} load");
    let shown = shell(dir.path(), &format!("script -qec '{loading}' /dev/null"));
    assert!(shown.contains("loading"), "{shown:?}");
    assert!(shown.trim_end().ends_with("writes          2"), "{shown:?}");
}

fn store_of_a_mebibyte_a_key(engine: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = AnyEngine::open(dir.path(), Some(engine), Options::new()).unwrap();
    for number in 100..164 {
        store.set_bytes(number.to_string().as_bytes(), &vec![b'v'; 1 << 20]).unwrap();
    }
    store.close().unwrap();
    dir
}

/// What `script` prints in `dir`; `$0` is `kvs`.
fn shell(dir: &Path, script: &str) -> String {
    let output = Command::new("sh").args(["-c", script, KVS]).current_dir(dir).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", text(output.stderr));
    text(output.stdout)
}

#[test]
fn kvs_sets_gets_and_removes_in_the_current_directory() {
    let dir = tempfile::tempdir().unwrap();
    check_set_get_rm(dir.path());
    assert_eq!(AnyEngine::engine_in(dir.path()).unwrap(), Some("kvs"));
}

#[cfg(feature = "sled")]
#[test]
fn kvs_uses_the_store_of_sled_that_it_finds() {
    let dir = tempfile::tempdir().unwrap();
    drop(AnyEngine::open(dir.path(), Some("sled"), Options::new()).unwrap());
    check_set_get_rm(dir.path());
    assert_eq!(AnyEngine::engine_in(dir.path()).unwrap(), Some("sled"));
}

/// Each run is a process of its own, so what one says must have outlived the others.
#[track_caller]
fn check_set_get_rm(dir: &Path) {
    check(KVS, dir, &["set", "city", "Oslo"], 0, "", "");
    check(KVS, dir, &["get", "city"], 0, "Oslo\n", "");
    check(KVS, dir, &["set", "city", "Bergen"], 0, "", "");
    check(KVS, dir, &["get", "city"], 0, "Bergen\n", "");
    check(KVS, dir, &["set", "", ""], 0, "", "");
    check(KVS, dir, &["get", ""], 0, "\n", "");
    check(KVS, dir, &["get", "town"], 0, "Key not found\n", "");
    check(KVS, dir, &["rm", "town"], 1, "", "Key not found\n");
    check(KVS, dir, &["rm", "city"], 0, "", "");
    check(KVS, dir, &["get", "city"], 0, "Key not found\n", "");
    check(KVS, dir, &["rm", "city"], 1, "", "Key not found\n");
}

#[test]
fn kvs_takes_the_directory_as_an_option_before_or_after_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("deep/store");
    let store = store.to_str().unwrap();
    check(KVS, dir.path(), &["--dir", store, "set", "k", "v"], 0, "", "");
    check(KVS, dir.path(), &["get", "k", "--dir", store], 0, "v\n", "");
    check(KVS, dir.path(), &["get", "k"], 0, "Key not found\n", "");
}

#[test]
fn kvs_takes_and_prints_bytes_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let key = OsString::from_vec(b"k\xff\xfe".to_vec());
    let value = OsString::from_vec(b"\x80 v\n\xff".to_vec());
    let set = run(KVS, dir.path(), &["set".as_ref(), key.as_os_str(), value.as_os_str()]);
    assert!(set.status.success(), "{}", text(set.stderr));
    let get = run(KVS, dir.path(), &["get".as_ref(), key.as_os_str()]);
    assert_eq!(get.stdout, b"\x80 v\n\xff\n");
    check(KVS, dir.path(), &["set", "--", "-k", "--v"], 0, "", "");
    check(KVS, dir.path(), &["get", "--", "-k"], 0, "--v\n", "");
}

#[test]
fn second_opener_is_told_which_process_has_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open(dir.path()).unwrap();
    let pid = std::process::id();
    let path = dir.path().to_str().unwrap();
    let said = format!("{path} is open already in process {pid}\n");
    for command in [&["set", "k", "v"][..], &["rm", "k"], &["compact"]] {
        let arguments = [&["--dir", path], command].concat();
        check(KVS, dir.path(), &arguments, 1, "", &format!("kvs: {said}"));
    }
    let arguments = [path, "--addr", "127.0.0.1:0"];
    check(SERVER, dir.path(), &arguments, 1, "", &format!("kvs-server: {said}"));
    // Who only reads does not disturb.
    store.set_bytes(b"k", b"now").unwrap();
    check(KVS, dir.path(), &["--dir", path, "get", "k"], 0, "now\n", "");
    check(KVS, dir.path(), &["--dir", path, "scan"], 0, "k\tnow\n", "");
    let dumped = "{\"key\":\"k\",\"value\":\"now\"}\n";
    check(KVS, dir.path(), &["--dir", path, "dump"], 0, dumped, "");
    let stat = text(run(KVS, dir.path(), &["--dir", path, "stat"]).stdout);
    assert!(stat.contains("  key_count                 1\n"), "{stat}");
    store.close().unwrap();
    check(KVS, dir.path(), &["set", "k", "v"], 0, "", "");
}

#[test]
fn file_in_place_of_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"precious").unwrap();
    let file = file.to_str().unwrap();
    let said = format!("{file} is not a directory; a store is one\n");
    let set = ["--dir", file, "set", "k", "v"];
    check(KVS, dir.path(), &set, 1, "", &format!("kvs: {said}"));
    let serve = [file, "--addr", "127.0.0.1:0"];
    check(SERVER, dir.path(), &serve, 1, "", &format!("kvs-server: {said}"));
}

#[cfg(feature = "sled")]
#[test]
fn server_refuses_a_directory_of_another_engine() {
    for (wrote, asked) in [("sled", "kvs"), ("kvs", "sled")] {
        let dir = tempfile::tempdir().unwrap();
        drop(AnyEngine::open(dir.path(), Some(wrote), Options::new()).unwrap());
        let path = dir.path().to_str().unwrap();
        let arguments = [path, "--engine", asked, "--addr", "127.0.0.1:0"];
        let said = format!(
            "kvs-server: {path} was written by engine {wrote}, not {asked}; open it with {wrote}\n"
        );
        check(SERVER, dir.path(), &arguments, 1, "", &said);
    }
}

#[test]
fn server_says_version_engine_and_address_and_writes_its_port() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let addr = &server.addr;
    assert_eq!(server.said, format!("kvs-server {VERSION}, engine kvs, listening on {addr}\n"));
    assert_eq!(server.port_file(), format!("{}\n", addr.rsplit_once(':').unwrap().1));
    drop(server);

    #[cfg(feature = "sled")]
    {
        let dir = tempfile::tempdir().unwrap();
        drop(AnyEngine::open(dir.path(), Some("sled"), Options::new()).unwrap());
        let said = Server::start(dir.path(), &[]).said.clone();
        assert!(said.contains("engine sled"), "{said}");
    }
}

#[test]
fn client_sets_gets_and_removes_on_every_engine_pool_and_durability() {
    for arguments in [
        &["--engine", "kvs", "--durability", "os", "--pool", "naive"][..],
        &["--engine", "kvs", "--durability", "sync", "--pool", "rayon", "--threads", "1"],
        &["--durability", "interval:5", "--pool", "shared-queue", "--connections-max", "2"],
        #[cfg(feature = "sled")]
        &["--engine", "sled", "--durability", "sync"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), arguments);
        let client = |command: &[&str], code, out: &str, err: &str| {
            let arguments = [&["--addr", &server.addr], command].concat();
            check(CLIENT, dir.path(), &arguments, code, out, err);
        };
        client(&["get", "city"], 0, "Key not found\n", "");
        client(&["rm", "city"], 1, "", "Key not found\n");
        client(&["set", "city", "Troms\u{f8}"], 0, "", "");
        client(&["get", "city"], 0, "Troms\u{f8}\n", "");
        client(&["set", "", ""], 0, "", "");
        client(&["get", ""], 0, "\n", "");
        client(&["rm", "city"], 0, "", "");
        client(&["get", "city"], 0, "Key not found\n", "");
    }
}

#[test]
fn client_without_a_server_fails_with_the_address() {
    // Bound for the whole test but not listening: nobody else gets this port.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap().to_string();
    let output = run(CLIENT, Path::new("."), &["get", "k", "--addr", &addr]);
    let said = text(output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with(&format!("kvs-client: cannot connect to {addr}: ")), "{said}");
    assert!(output.stdout.is_empty());
}

/// With no passwords, who can connect can do everything.
#[test]
fn server_lets_other_machines_in_only_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let store = store.to_str().unwrap();
    for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let output = run(SERVER, dir.path(), &[store, "--addr", addr]);
        let said = text(output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("kvs-server: option addr must be 127.0.0.1 or ::1, "), "{said}");
        for way_out in ["tunnel", "proxy", "--unprotected"] {
            assert!(said.contains(way_out), "{said}");
        }
        assert!(!Path::new(store).exists(), "opened before it was refused");
    }
    let server = Server::start_at(dir.path(), "0.0.0.0:0", &["--unprotected"]);
    let (_, port) = server.addr.rsplit_once(':').unwrap();
    let addr = format!("127.0.0.1:{port}");
    check(CLIENT, dir.path(), &["get", "k", "--addr", &addr], 0, "Key not found\n", "");
}

/// What nobody waits for is heard all the same.
#[test]
fn server_says_on_standard_error_what_it_does_without() {
    let dir = tempfile::tempdir().unwrap();
    let said = Server::start(dir.path(), &["--connections-max", "4000000000"]).said.clone();
    assert!(said.starts_with("kvs-server: this process may open "), "{said}");
    assert!(said.contains("raise that by `ulimit -n 4000000200`\n"), "{said}");
}

#[test]
fn second_server_on_the_same_address_is_refused() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(first.path(), &[]);
    let output = run(SERVER, second.path(), &["--addr", &server.addr]);
    let said = text(output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with(&format!("kvs-server: cannot listen on {}: ", server.addr)), "{said}");
}

/// Requests that have arrived are answered before the server ends, and what it answered is there
/// when the store is opened again. Run on each engine by its name.
fn check_signal_drains(engine: &str, signal: &str) {
    const REQUEST_COUNT: usize = 500;
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--engine", engine, "--durability", "os"]);
    let mut connection = TcpStream::connect(&server.addr).unwrap();
    let mut requests = Vec::new();
    for n in 0..REQUEST_COUNT {
        writeln!(requests, "{{\"Set\":{{\"key\":\"{n}\",\"value\":\"v{n}\"}}}}").unwrap();
    }
    connection.write_all(&requests).unwrap();
    // One reply says that the connection has been accepted; the rest is in the kernel or further.
    let mut replies = BufReader::new(connection);
    let mut reply = String::new();
    replies.read_line(&mut reply).unwrap();
    server.signal(signal);
    replies.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "{\"Ok\":null}\n".repeat(REQUEST_COUNT));
    assert_eq!(server.ended().code(), Some(0));

    let store = AnyEngine::open(dir.path(), Some(engine), Options::new()).unwrap();
    for n in 0..REQUEST_COUNT {
        assert_eq!(store.get(n.to_string()).unwrap(), Some(format!("v{n}")));
    }
}

#[test]
fn signal_drains_the_server_and_closes_the_store() {
    check_signal_drains("kvs", "TERM");
    check_signal_drains("kvs", "INT");
}

#[cfg(feature = "sled")]
#[test]
fn signal_drains_the_server_and_closes_the_store_of_sled() {
    check_signal_drains("sled", "TERM");
    check_signal_drains("sled", "INT");
}

/// A client that takes no replies holds up the drain; who does not want to wait asks again.
#[test]
fn second_signal_ends_the_server_at_once() {
    const VALUE_LEN: usize = 16 << 20;
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let mut connection = TcpStream::connect(&server.addr).unwrap();
    let value = "v".repeat(VALUE_LEN);
    writeln!(connection, "{{\"Set\":{{\"key\":\"k\",\"value\":\"{value}\"}}}}").unwrap();
    // The reply to the first, and the start of the second, which is more than sockets hold.
    connection.write_all(b"{\"Get\":{\"key\":\"k\"}}\n").unwrap();
    connection.read_exact(&mut [0; 100]).unwrap();

    server.signal("TERM");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(server.child.try_wait().unwrap(), None, "it did not wait for its client");
    server.signal("INT");
    assert_eq!(server.ended().code(), Some(1));
}

fn run(program: &str, dir: &Path, arguments: &[impl AsRef<OsStr>]) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait(&mut child);
    child.wait_with_output().unwrap()
}

/// Waits for the end, and kills what does not come to one.
#[track_caller]
fn wait(child: &mut Child) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if started.elapsed() > ENDS_WITHIN {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it did not end");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Runs a program to its end, which must be as said: exit code, standard output, standard error.
#[track_caller]
fn check(program: &str, dir: &Path, arguments: &[&str], code: i32, out: &str, err: &str) {
    let output = run(program, dir, arguments);
    let found = (output.status.code(), text(output.stdout), text(output.stderr));
    assert_eq!(found, (Some(code), out.to_owned(), err.to_owned()), "{arguments:?}");
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// A running `kvs-server`, killed when dropped.
struct Server {
    child: Child,
    /// Kept open: a server whose standard error is gone would be another test.
    _stderr: BufReader<ChildStderr>,
    /// Its standard error, up to the line that says where it listens.
    said: String,
    addr: String,
    port_file: PathBuf,
    _port_dir: tempfile::TempDir,
}

impl Server {
    #[track_caller]
    fn start(dir: &Path, arguments: &[&str]) -> Self {
        Self::start_at(dir, "127.0.0.1:0", arguments)
    }

    #[track_caller]
    fn start_at(dir: &Path, addr: &str, arguments: &[&str]) -> Self {
        let port_dir = tempfile::tempdir().unwrap();
        let port_file = port_dir.path().join("port");
        let mut child = Command::new(SERVER)
            .arg(dir)
            .args(["--addr", addr, "--port-file"])
            .arg(&port_file)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("listening on ") {
            let len = stderr.read_line(&mut said).unwrap();
            assert!(len > 0, "the server said {said:?} and ended: {:?}", child.wait());
        }
        let (_, addr) = said.trim_end().split_once("listening on ").unwrap();
        let addr = addr.to_owned();
        Self { child, _stderr: stderr, said, addr, port_file, _port_dir: port_dir }
    }

    /// What the port file holds, as soon as it is there.
    fn port_file(&self) -> String {
        let started = Instant::now();
        loop {
            match std::fs::read_to_string(&self.port_file) {
                Ok(port) => return port,
                Err(error) => assert!(started.elapsed() < ENDS_WITHIN, "no port file: {error}"),
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    #[track_caller]
    fn ended(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A store with a few records, some of them dead, and one byte of a value flipped.
fn damaged_store(dir: &Path) -> PathBuf {
    let store = KvStore::open_with(dir, Options::new()).unwrap();
    for key in ["a", "b", "c"] {
        store.set_bytes(key.as_bytes(), b"value").unwrap();
    }
    store.remove_bytes(b"c").unwrap();
    store.close().unwrap();
    drop(KvStore::open(dir).unwrap());
    let file = crate::recovery::segments(dir).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[64 + 24 + 1] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    file
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn kvs_verify_names_the_damage_and_repair_saves_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let file = damaged_store(&dir.path().join("bad"));
    let name = file.file_name().unwrap().to_str().unwrap();

    let output = run(KVS, dir.path(), &["--dir", "bad", "verify"]);
    assert_eq!(output.status.code(), Some(1));
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(out.contains(&format!("{name} at byte 64, 32 bytes: ")), "{out}");
    assert!(out.contains("damages         1\n"), "{out}");
    assert!(err.contains("is damaged at byte 64"), "{err}");
    let output = run(KVS, dir.path(), &["verify", "--json", "--dir", "bad"]);
    assert_eq!(json(&output)["damages"][0]["offset"], 64);
    // The key that is hit is told so; the others are there.
    let output = run(KVS, dir.path(), &["--dir", "bad", "get", "a"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(output.stderr).contains(&format!("{name} is damaged at byte 64")));
    check(KVS, dir.path(), &["--dir", "bad", "get", "b"], 0, "value\n", "");

    let output = run(KVS, dir.path(), &["--dir", "bad", "repair", "saved", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(output.stderr));
    let report = json(&output);
    assert_eq!((&report["key_count"], &report["doubtful_key_count"]), (&1.into(), &0.into()));
    check(KVS, dir.path(), &["--dir", "saved", "get", "b"], 0, "value\n", "");
    check(KVS, dir.path(), &["--dir", "saved", "get", "c"], 0, "Key not found\n", "");
    let again = "kvs: there is a store in saved already\n";
    check(KVS, dir.path(), &["--dir", "bad", "repair", "saved"], 1, "", again);
    let onto_itself = "kvs: there is a store in bad already\n";
    check(KVS, dir.path(), &["--dir", "bad", "repair", "bad"], 1, "", onto_itself);

    let output = run(KVS, dir.path(), &["--dir", "saved", "verify"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(output.stdout).contains("damages         0\n"));
    check(KVS, dir.path(), &["--dir", "none", "verify"], 1, "", "kvs: there is no store in none\n");
}

#[test]
fn kvs_stat_shows_what_is_live_and_compact_gives_the_rest_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open(dir.path()).unwrap();
    for i in 0..2000_u32 {
        store.set_bytes(&(i % 1000).to_be_bytes(), &[7; 100]).unwrap();
    }
    store.close().unwrap();
    let table = text(run(KVS, dir.path(), &["stat"]).stdout);
    assert!(table.contains("\n  key_count                 1000\n"), "{table}");
    assert!(table.contains(" 49 % live  ############------------\n"), "{table}");
    let report = json(&run(KVS, dir.path(), &["stat", "--json"]));
    // A figure that is in one and not in the other was forgotten.
    for name in report["stats"].as_object().unwrap().keys() {
        let is_row = |line: &str| line.split_whitespace().next() == Some(name);
        assert_eq!(table.lines().filter(|line| is_row(line)).count(), 1, "{name}:\n{table}");
    }
    assert_eq!(report["stats"]["key_count"], 1000);
    assert_eq!(report["segments"][0]["is_sealed"], true);
    let compacted = json(&run(KVS, dir.path(), &["compact", "--json"]));
    let bytes = |name: &str| compacted[name].as_u64().unwrap();
    assert!(bytes("bytes_after") * 19 < bytes("bytes_before") * 10, "{compacted}");
    let table = text(run(KVS, dir.path(), &["stat"]).stdout);
    assert!(table.contains(" 99 % live  ########################\n"), "{table}");
    for command in ["stat", "compact"] {
        let error = format!("kvs: there is no store in {}\n", dir.path().join("none").display());
        check(KVS, dir.path(), &["--dir", "none", command], 1, "", &error);
    }
}

#[test]
fn kvs_checkpoint_makes_a_store_and_overwrites_none() {
    let dir = tempfile::tempdir().unwrap();
    check(KVS, dir.path(), &["--dir", "live", "set", "k", "v"], 0, "", "");
    let report = json(&run(KVS, dir.path(), &["--dir", "live", "checkpoint", "copy", "--json"]));
    assert_eq!(report["key_count"], 1);
    assert!(report["total_bytes"].as_u64().unwrap() > 64, "{report}");
    check(KVS, dir.path(), &["--dir", "live", "set", "k", "newer"], 0, "", "");
    check(KVS, dir.path(), &["--dir", "copy", "get", "k"], 0, "v\n", "");
    let exists = "kvs: there is a store in copy already\n";
    check(KVS, dir.path(), &["--dir", "live", "checkpoint", "copy"], 1, "", exists);
    std::fs::create_dir(dir.path().join("notes")).unwrap();
    std::fs::write(dir.path().join("notes/mine"), "mine").unwrap();
    let full = "kvs: notes is not empty; name a new one\n";
    check(KVS, dir.path(), &["--dir", "live", "checkpoint", "notes"], 1, "", full);
}

#[test]
fn kvs_log_prints_records_while_the_store_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open(dir.path()).unwrap();
    store.set_bytes(b"k", b"old").unwrap();
    store.set_bytes(b"k", b"new").unwrap();
    for (arguments, has_value) in [(&["log"][..], false), (&["log", "--values"], true)] {
        let out = text(run(KVS, dir.path(), arguments).stdout);
        let lines: Vec<serde_json::Value> =
            out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let states: Vec<_> = lines.iter().filter_map(|line| line["state"].as_str()).collect();
        assert_eq!(states, ["stale", "live"], "{out}");
        assert_eq!(lines.iter().any(|line| line["value"] == "new"), has_value, "{out}");
    }
}

#[test]
fn kvs_dump_and_load_move_a_store_and_name_a_broken_line() {
    let dir = tempfile::tempdir().unwrap();
    for (key, value) in [("a", "1"), ("b", "2"), ("\u{e9}", "")] {
        check(KVS, dir.path(), &["--dir", "from", "set", key, value], 0, "", "");
    }
    let output = run(KVS, dir.path(), &["--dir", "from", "dump"]);
    assert_eq!(output.status.code(), Some(0));
    std::fs::write(dir.path().join("dump.jsonl"), &output.stdout).unwrap();
    check(KVS, dir.path(), &["--dir", "to", "load", "dump.jsonl"], 0, "writes          3\n", "");
    for (key, value) in [("a", "1\n"), ("b", "2\n"), ("\u{e9}", "\n")] {
        check(KVS, dir.path(), &["--dir", "to", "get", key], 0, value, "");
    }
    let lines =
        "{\"key\":\"x\",\"value\":\"1\"}\n{\"key\":\"y\"}\n{\"key\":\"z\",\"value\":\"3\"}\n";
    std::fs::write(dir.path().join("broken.jsonl"), lines).unwrap();
    let error = "kvs: broken.jsonl, line 2: no value, or not base64\n";
    check(KVS, dir.path(), &["--dir", "to", "load", "broken.jsonl"], 1, "", error);
    check(KVS, dir.path(), &["--dir", "to", "get", "x"], 0, "1\n", "");
    check(KVS, dir.path(), &["--dir", "to", "get", "z"], 0, "Key not found\n", "");
    let skipping = ["--dir", "to", "load", "broken.jsonl", "--skip", "2", "--json"];
    check(KVS, dir.path(), &skipping, 0, "{\"write_count\":1}\n", "");
    check(KVS, dir.path(), &["--dir", "to", "get", "z"], 0, "3\n", "");
    let missing = run(KVS, dir.path(), &["--dir", "new", "load", "missing.jsonl"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(!dir.path().join("new").exists(), "a store was made for nothing");
}

#[test]
fn kvs_import_brings_over_old_logs_and_refuses_what_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old");
    std::fs::create_dir(&old).unwrap();
    std::fs::write(old.join("1.log"), "{\"Set\":{\"key\":\"k\",\"value\":\"v\"}}\n").unwrap();
    std::fs::write(old.join("2.log"), "{\"cmd\":\"Remove\",\"key\":\"k\"}\n{\"Set\":").unwrap();
    let output = run(KVS, dir.path(), &["--dir", "new", "import", "old"]);
    assert_eq!(output.status.code(), Some(0));
    let out = text(output.stdout);
    assert_eq!(out, "files           2\nwrites          2\ncrash tail      7 bytes passed over\n");
    check(KVS, dir.path(), &["--dir", "new", "get", "k"], 0, "Key not found\n", "");
    let output = run(KVS, dir.path(), &["--dir", "new", "import", "old", "--json"]);
    assert_eq!(json(&output)["write_count"], 2);
    let foreign = "kvs: there is no store in .\n";
    check(KVS, dir.path(), &["--dir", "other", "import", "."], 1, "", foreign);
    assert!(!dir.path().join("other").exists(), "a store was made for nothing");
    assert_eq!(run(KVS, &old, &["import", "."]).status.code(), Some(1), "into itself");
    assert_eq!(old.read_dir().unwrap().count(), 2);
}

#[test]
fn help_of_every_command_shows_an_example() {
    for (program, name) in [(KVS, "kvs"), (CLIENT, "kvs-client")] {
        let help = text(run(program, Path::new("."), &["--help"]).stdout);
        let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let commands: Vec<_> =
            commands.map_while(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
        assert!(commands.contains(&"rm"), "{commands:?}");
        for command in commands {
            let help = text(run(program, Path::new("."), &[command, "--help"]).stdout);
            assert!(help.contains(&format!("Usage: {name} {command}")), "{help}");
            assert!(help.contains("Example:\n  kvs"), "{help}");
            let fits = help.lines().count() <= 24 && help.lines().all(|line| line.len() <= 80);
            assert!(fits, "{help}");
        }
    }
}
