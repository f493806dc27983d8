//! What the server and its client promise, over real sockets.

mod support;

use std::fs::File;
use std::io::{ErrorKind, Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use kvs::thread_pool::{SharedQueueThreadPool, ThreadPool};
use kvs::{
    Durability, KvServer, KvStore, KvsClient, KvsEngine, KvsError, Options, REQUEST_BYTES_MAX,
    ServerOptions,
};
use socket2::SockRef;

use self::support::{Client, Fixture, Hooked, address_apart, get, open, remove, set};
use crate::process::{
    CpuClock, PATIENCE, descriptor_count, eventually, in_own_process, status_kib, thread_count,
};

const POOLS: [&str; 3] = ["shared-queue", "rayon", "naive"];
const OK: &str = "{\"Ok\":null}\n";

// The protocol

/// One request, half-close, read to the end: no byte more or less than the first server sent.
#[test]
fn first_clients_are_answered_byte_for_byte() {
    let fixture = Fixture::new();
    for _ in 0..50 {
        for (request, reply) in [
            (set("k", "v"), r#"{"Ok":null}"#),
            (get("k"), r#"{"Ok":"v"}"#),
            (remove("k"), r#"{"Ok":null}"#),
            (remove("k"), r#"{"Err":"Key not found"}"#),
            (get("k"), r#"{"Ok":null}"#),
            (set("", ""), r#"{"Ok":null}"#),
            (get(""), r#"{"Ok":""}"#),
            (remove(""), r#"{"Ok":null}"#),
            (set("k", r"\u00e9\n\ud83e\udd80"), r#"{"Ok":null}"#),
            (get("k"), "{\"Ok\":\"\u{e9}\\n\u{1f980}\"}"),
            (remove("k"), r#"{"Ok":null}"#),
        ] {
            assert_eq!(fixture.exchange(request.as_bytes()), reply, "{request}");
        }
    }
}

/// The end of the stream may lag behind the request: the reply comes at once, and still without a
/// newline.
#[test]
fn a_late_half_close_does_not_change_the_reply() {
    let fixture = Fixture::new();
    let is_late = || {
        let mut client = fixture.connect();
        client.send(get("k"));
        let sent = Instant::now();
        let mut reply = [0; 11];
        client.stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, br#"{"Ok":null}"#);
        client.half_close();
        // The server waits 40 ms; a busy machine may have made it longer.
        let took = sent.elapsed();
        let rest = client.read_to_end();
        rest.is_empty() || {
            assert!(took > Duration::from_millis(20), "{rest:?} after {took:?}");
            false
        }
    };
    eventually("a reply without a newline", is_late);
}

#[test]
fn a_client_that_stays_gets_its_newline_though_it_sent_none() {
    let fixture = Fixture::new();
    let mut client = fixture.connect();
    for _ in 0..3 {
        client.send(get("k"));
        assert_eq!(client.read_line(), OK);
    }
    // A newline of one's own needs no waiting; the machine may make some of these wait.
    let quickest = (0..20).map(|_| {
        let mut client = fixture.connect();
        let start = Instant::now();
        assert_eq!(client.ask(&get("k")), OK);
        start.elapsed()
    });
    let quickest = quickest.min().unwrap();
    assert!(quickest < Duration::from_millis(30), "{quickest:?}");
}

/// Whatever the network does to the bytes, and whether writes wait for the disk or not.
#[test]
fn every_split_of_the_bytes_gives_the_same_replies() {
    let requests = [
        set("a", r#"x\"}{"#),
        get("a"),
        r#" {"Fly":{}} "#.to_owned(),
        remove("a"),
        get("a"),
        r#"{"Ping":{}}"#.to_owned(),
    ];
    let one_by_one = concat!(
        "{\"Ok\":null}\n",
        "{\"Ok\":\"x\\\"}{\"}\n",
        "{\"Err\":\"unknown variant `Fly`, expected one of `Set`, `Get`, `Remove`, `Ping` ",
        "at line 1 column 6\"}\n",
        "{\"Ok\":null}\n",
        "{\"Ok\":null}\n",
        "{\"Ok\":null}\n",
    );
    for durability in [Durability::Os, Durability::Sync] {
        let dir = tempfile::tempdir().unwrap();
        let fixture = Fixture::of("shared-queue", 2, ServerOptions::new(), |_| {
            KvStore::open_with(dir.path(), Options::new().durability(durability)).unwrap()
        });
        check_splits(&fixture, &requests.concat(), one_by_one);
        check_splits(&fixture, &requests.join("\n"), one_by_one);
        check_splits(&fixture, &get("lone"), r#"{"Ok":null}"#);
        check_splits(&fixture, &set("lone", "x"), r#"{"Ok":null}"#);
        fixture.engine.remove_bytes(b"lone").unwrap();
        let malformed = format!("{}{{]}}{}", get("a"), get("a"));
        let replies = fixture.exchange(malformed.as_bytes());
        assert!(replies.starts_with("{\"Ok\":null}\n{\"Err\":\"malformed"), "{replies}");
        check_splits(&fixture, &malformed, &replies);
    }
}

#[track_caller]
fn check_splits<E: KvsEngine>(fixture: &Fixture<E>, bytes: &str, replies: &str) {
    assert_eq!(fixture.exchange(bytes.as_bytes()), replies, "whole: {bytes}");
    for split in 1..bytes.len() {
        let (head, tail) = bytes.as_bytes().split_at(split);
        let mut client = fixture.connect();
        client.send(head);
        thread::sleep(Duration::from_micros(300));
        client.send_last(tail);
        assert_eq!(client.read_to_end(), replies, "split at {split}: {bytes}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_beyond_what_one_turn_takes() {
    const COUNT: usize = 5000;
    for pool in POOLS {
        let fixture = Fixture::with(pool, 2, ServerOptions::new());
        let mut client = fixture.connect();
        let mut sender = client.stream.try_clone().unwrap();
        let sending = thread::spawn(move || {
            let all: String = (0..COUNT).map(|n| set("k", &n.to_string()) + &get("k")).collect();
            sender.write_all(all.as_bytes()).unwrap();
            sender.shutdown(Shutdown::Write).unwrap();
        });
        for number in 0..COUNT {
            assert_eq!(client.read_line(), OK, "{pool}");
            assert_eq!(client.read_line(), format!("{{\"Ok\":\"{number}\"}}\n"), "{pool}");
        }
        assert_eq!(client.read_to_end(), "", "{pool}");
        sending.join().unwrap();
    }
}

/// With one job per connection, 48 of them would starve.
#[test]
fn fifty_persistent_clients_share_two_threads() {
    for pool in POOLS {
        let fixture = Fixture::with(pool, 2, ServerOptions::new());
        let all_connected = Arc::new(Barrier::new(50));
        let clients: Vec<_> = (0..50)
            .map(|number| {
                let (addr, all_connected) = (fixture.addr(), Arc::clone(&all_connected));
                thread::spawn(move || {
                    let mut client = KvsClient::connect(addr).unwrap();
                    all_connected.wait();
                    for round in 0..20 {
                        let (key, value) = (format!("k{number}"), format!("{number}-{round}"));
                        client.set(key.clone(), value.clone()).unwrap();
                        assert_eq!(client.get(key.clone()).unwrap(), Some(value));
                        client.remove(key).unwrap();
                    }
                    all_connected.wait();
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap_or_else(|_| panic!("{pool}"));
        }
        assert_eq!(fixture.engine.len().unwrap(), 0, "{pool}");
    }
}

/// A connection that always has more to do gives way after each turn.
#[test]
fn a_flood_from_one_client_does_not_starve_another() {
    for pool in ["shared-queue", "rayon"] {
        let fixture = Fixture::with(pool, 1, ServerOptions::new());
        let mut flood = fixture.connect();
        let mut sender = flood.stream.try_clone().unwrap();
        let sending = thread::spawn(move || {
            let requests = (get("k") + "\n").repeat(10_000);
            while sender.write_all(requests.as_bytes()).is_ok() {}
        });
        let reading = thread::spawn(move || {
            let mut chunk = [0; 4096];
            while flood.stream.read(&mut chunk).is_ok_and(|len| len > 0) {}
            let _ = flood.stream.shutdown(Shutdown::Both);
        });
        thread::sleep(Duration::from_millis(50));
        let mut other = fixture.connect();
        for _ in 0..20 {
            assert_eq!(other.ask(&set("other", "v")), OK, "{pool}");
        }
        assert!(!sending.is_finished(), "{pool}: the flood was over");
        fixture.server.stop(PATIENCE).unwrap();
        sending.join().unwrap();
        reading.join().unwrap();
    }
}

/// One error line that says why, then the end of the stream: never a reset, a hang or silence.
#[test]
fn what_is_not_our_protocol_gets_one_error_and_a_close() {
    let fixture = Fixture::new();
    let deep = "[".repeat(1000);
    for (bytes, reply) in [
        (&b"{]}"[..], r#"{"Err":"malformed request: "#),
        (b"{\"Get\":{\"key\":\"k\"}]", r#"{"Err":"malformed request: "#),
        (b"{\"Get\":{\"key\":tru}}", r#"{"Err":"malformed request: "#),
        (b"{\"Get\":{\"key\":\"\xff\xfe\"}}", r#"{"Err":"malformed request: "#),
        (b"{\"Get\":{\"key\":\"a\0b\"}}", r#"{"Err":"malformed request: control character"#),
        (b"{\0\0\0", r#"{"Err":"malformed request: not JSON"#),
        (b"\0\0\0\0", r#"{"Err":"malformed request: not a JSON object"#),
        (b"[1]", r#"{"Err":"malformed request: not a JSON object"#),
        (b"\"Ping\"", r#"{"Err":"malformed request: not a JSON object"#),
        (b"\xef\xbb\xbf{}", r#"{"Err":"malformed request: not a JSON object"#),
        (format!("{{\"a\":{deep}").as_bytes(), r#"{"Err":"malformed request: nested deeper"#),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", r#"{"Err":"this port speaks plain"#),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{}", "-ERR this server speaks"),
        (b"PING\r\n", "-ERR this server speaks JSON"),
        (b"*1\r\n$4\r\nPING\r\n", "-ERR this server speaks JSON"),
        (b"*2147483647\r\n", "-ERR this server speaks JSON"),
    ] {
        let mut client = fixture.connect();
        client.send(bytes);
        // More than one read takes, so that unread input is there when the server has answered.
        let _ = client.stream.write_all(&vec![b'x'; 100_000]);
        let replies = client.read_to_end();
        assert!(replies.starts_with(reply), "{bytes:?}: {replies}");
        assert_eq!(replies.matches('\n').count(), 1, "{bytes:?}: {replies}");
    }
    assert_eq!(fixture.connect().ask(&get("k")), OK);
}

#[test]
fn half_a_request_is_refused_when_the_client_has_closed() {
    let fixture = Fixture::new();
    let whole = set("k", "v");
    for len in 1..whole.len() {
        let reply = fixture.exchange(&whole.as_bytes()[..len]);
        assert_eq!(reply, "{\"Err\":\"malformed request: it ends in the middle\"}\n", "{len}");
    }
    for nothing in ["", " \r\n\t "] {
        assert_eq!(fixture.exchange(nothing.as_bytes()), "");
    }
    assert_eq!(fixture.engine.len().unwrap(), 0);
}

#[test]
fn requests_that_are_not_ours_are_refused_and_the_connection_goes_on() {
    let fixture = Fixture::new();
    let mut client = fixture.connect();
    for (request, reason) in [
        (r#"{"Fly":{"key":"k"}}"#, "unknown variant `Fly`"),
        (r#"{"Get":{}}"#, "missing field `key`"),
        (r#"{"Get":{"key":7}}"#, "invalid type"),
        (r#"{"Get":{"key":"k","binary":true}}"#, "unknown field `binary`"),
        (r#"{"Set":{"key":"k"}}"#, "missing field `value`"),
        ("{}", "expected value"),
    ] {
        let reply = client.ask(request);
        assert!(reply.starts_with("{\"Err\":\"") && reply.contains(reason), "{request}: {reply}");
        assert_eq!(client.ask(&get("k")), OK);
    }
}

#[test]
fn keys_over_the_limit_are_refused_and_the_connection_goes_on() {
    let fixture = Fixture::new();
    let mut client = fixture.connect();
    let max = kvs::options::KEY_LEN_MAX;
    assert_eq!(client.ask(&set(&"k".repeat(max), "v")), OK);
    assert_eq!(client.ask(&get(&"k".repeat(max))), "{\"Ok\":\"v\"}\n");
    let reply = client.ask(&set(&"k".repeat(max + 1), "v"));
    assert_eq!(reply, "{\"Err\":\"key of 65536 bytes is over the limit of 65535\"}\n");
    assert_eq!(client.ask(&get(&"k".repeat(max + 1))), OK);
}

#[test]
fn zeros_and_every_escape_go_through_keys_and_values() {
    let fixture = Fixture::new();
    let mut client = fixture.connect();
    let text: String = ('\0'..='\u{ff}').chain("\u{2028}\u{1f980}".chars()).collect();
    fixture.engine.set_bytes(text.as_bytes(), text.as_bytes()).unwrap();
    let json = serde_json::to_string(&text).unwrap();
    let reply = client.ask(&format!(r#"{{"Get":{{"key":{json}}}}}"#));
    assert_eq!(reply, format!("{{\"Ok\":{json}}}\n"));
}

#[test]
fn values_that_are_not_text_are_refused_and_kept() {
    let fixture = Fixture::new();
    fixture.engine.set_bytes(b"k", b"\xff\x00").unwrap();
    let mut client = fixture.connect();
    assert_eq!(client.ask(&get("k")), "{\"Err\":\"value is not UTF-8; ask with binary\"}\n");
    assert_eq!(client.ask(&get("other")), OK);
    assert_eq!(fixture.engine.get_bytes(b"k").unwrap().unwrap(), *b"\xff\x00");
}

#[test]
fn large_values_pass_whole_while_others_are_served() {
    let fixture = Fixture::new();
    let value = "0123456789abcdef".repeat(1 << 18);
    let big = thread::spawn({
        let (addr, value) = (fixture.addr(), value.clone());
        move || {
            let mut client = KvsClient::connect(addr).unwrap();
            client.set("big".to_owned(), value.clone()).unwrap();
            assert!(client.get("big".to_owned()).unwrap() == Some(value));
        }
    });
    let mut client = fixture.connect();
    while !big.is_finished() {
        assert_eq!(client.ask(&get("small")), OK);
    }
    big.join().unwrap();
}

// Limits

#[test]
fn requests_are_taken_up_to_the_limit_and_not_one_byte_beyond() {
    let at_limit = set("k", &"v".repeat(100_000));
    let options = ServerOptions::new().request_bytes_max(at_limit.len());
    let fixture = Fixture::with("shared-queue", 2, options);
    assert_eq!(fixture.exchange(at_limit.as_bytes()), r#"{"Ok":null}"#);
    let above = set("k", &"v".repeat(100_001));
    let refusal = "{\"Err\":\"malformed request: it is longer than this server takes\"}\n";
    for _ in 0..20 {
        let mut client = fixture.connect();
        client.send(&above);
        assert_eq!(client.read_to_end(), refusal);
    }
    // The limit is per request: together they may be longer.
    let mut client = fixture.connect();
    for _ in 0..3 {
        assert_eq!(client.ask(&at_limit), OK);
    }
}

#[test]
fn the_limit_of_requests_has_a_limit() {
    let start = |bytes| {
        let dir = tempfile::tempdir().unwrap();
        let pool = SharedQueueThreadPool::new(1).unwrap();
        let options = ServerOptions::new().request_bytes_max(bytes);
        KvServer::start(open(dir.path()), pool, "127.0.0.1:0", options).map(drop)
    };
    start(REQUEST_BYTES_MAX).unwrap();
    match start(REQUEST_BYTES_MAX + 1) {
        Err(KvsError::InvalidOption { name: "request_bytes_max", .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// Together they hold no more than that, and whoever asks for little is served meanwhile.
#[test]
fn unfinished_requests_have_a_limit_for_all_clients_together() {
    let options = ServerOptions::new().request_bytes_max(500_000).unfinished_bytes_max(1_000_000);
    // With one thread they come over the limit one by one.
    let fixture = Fixture::with("shared-queue", 1, options);
    let request = set("k", &"v".repeat(450_000));
    let (most, rest) = request.split_at(request.len() - 10);
    for _ in 0..3 {
        let mut clients = [(); 3].map(|()| fixture.connect());
        for client in &mut clients {
            client.send(most);
        }
        // Two of them fit.
        let is_refused = |client: &mut Client| !client.is_quiet_for(Duration::from_millis(10));
        let mut refused = 0;
        eventually("one is refused", || {
            refused = clients.iter_mut().position(is_refused).unwrap_or(3);
            refused < 3
        });
        let small = set("small", &"v".repeat(20_000));
        assert_eq!(fixture.exchange(small.as_bytes()), r#"{"Ok":null}"#);
        for (number, client) in clients.iter_mut().enumerate() {
            if number == refused {
                let reply = client.read_to_end();
                assert!(reply.contains("too many requests arrive at once"), "{reply}");
            } else {
                client.send(rest);
                client.half_close();
                assert_eq!(client.read_to_end(), r#"{"Ok":null}"#);
            }
        }
    }
}

/// However little is allowed to all: one request of the longest, one after the other, and small
/// ones beside it.
#[test]
fn the_limit_for_all_clients_leaves_room_for_one_long_request_and_for_small_ones() {
    let (long, small) = (set("k", &"v".repeat(300_000)), set("small", &"v".repeat(50_000)));
    let options = ServerOptions::new().request_bytes_max(long.len()).unfinished_bytes_max(1);
    let fixture = Fixture::with("shared-queue", 2, options);
    for _ in 0..5 {
        let mut clients = [&long, &small].map(|request| {
            let (most, rest) = request.split_at(request.len() - 10);
            let mut client = fixture.connect();
            client.send(most);
            // It has arrived in part.
            assert!(client.is_quiet_for(Duration::from_millis(20)));
            (client, rest)
        });
        for (client, rest) in &mut clients {
            client.send_last(rest.as_bytes());
            assert_eq!(client.read_to_end(), r#"{"Ok":null}"#);
        }
        let mut gone = fixture.connect();
        gone.send(&long[..200_000]);
        SockRef::from(&gone.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(gone);
        eventually("what a client had sent is forgotten with it", || {
            fixture.exchange(long.as_bytes()) == r#"{"Ok":null}"#
        });
    }
}

/// Two gigabytes that never end are refused at the limit, and thrown away rather than kept.
#[test]
fn an_endless_request_is_refused_without_memory_for_it() {
    in_own_process("server::an_endless_request_is_refused_without_memory_for_it", "", || {
        let options = ServerOptions::new().request_bytes_max(1 << 20);
        let fixture = Fixture::with("shared-queue", 2, options);
        let before_kib = status_kib("VmHWM");
        let mut client = fixture.connect();
        client.send("{\"Set\":{\"key\":\"k\",\"value\":\"");
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..256 {
            client.send(&chunk);
        }
        let reply = client.read_to_end();
        assert!(reply.contains("longer than this server takes"), "{reply}");
        let grown_kib = status_kib("VmHWM") - before_kib;
        assert!(grown_kib < 16 << 10, "{grown_kib} KiB");
    });
}

#[test]
fn a_client_that_sends_for_ever_after_its_error_is_cut_off() {
    let options =
        ServerOptions::new().request_bytes_max(10).linger_timeout(Duration::from_millis(200));
    let fixture = Fixture::with("shared-queue", 2, options);
    let mut client = fixture.connect();
    let start = Instant::now();
    while client.stream.write_all(&[b'{'; 1000]).is_ok() {
        assert!(start.elapsed() < PATIENCE, "never cut off");
    }
}

#[test]
fn one_client_too_many_is_told_so_and_there_is_room_again_when_one_leaves() {
    let fixture = Fixture::with("shared-queue", 2, ServerOptions::new().connections_max(3));
    let mut clients: Vec<_> = (0..3).map(|_| fixture.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.ask(&get("k")), OK);
    }
    for _ in 0..20 {
        let mut one_more = fixture.connect();
        // Its request is on the way already; the error must reach it all the same.
        let _ = one_more.stream.write_all(get("k").as_bytes());
        let reply = one_more.read_to_end();
        assert!(reply.starts_with("{\"Err\":\"the server has all the connections"), "{reply}");
    }
    drop(clients.pop());
    eventually("room for a new client", || {
        let mut client = fixture.connect();
        let _ = client.stream.write_all((get("k") + "\n").as_bytes());
        client.read_line() == OK
    });
    for client in &mut clients {
        assert_eq!(client.ask(&get("k")), OK);
    }
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let test = "server::running_out_of_descriptors_is_survived";
    in_own_process(test, "ulimit -n 64", clients_beyond_the_descriptors);
}

#[test]
fn running_out_of_descriptors_one_earlier_is_survived() {
    let test = "server::running_out_of_descriptors_one_earlier_is_survived";
    in_own_process(test, "ulimit -n 63", clients_beyond_the_descriptors);
}

/// A connection takes two descriptors of this process. With an even number of them to spare the
/// client finds none in the end, with an odd one the server. The limits above are one of each.
fn clients_beyond_the_descriptors() {
    let fixture = Fixture::new();
    let mut client = fixture.connect();
    assert_eq!(client.ask(&get("k")), OK);
    let clock = CpuClock::open();
    let last_descriptor = File::open("/dev/null").unwrap();
    let mut crowd = Vec::new();
    while let Ok(stream) = TcpStream::connect(fixture.addr()) {
        crowd.push(stream);
        // When the second is answered, the server has done what it had to do at the first.
        assert_eq!([(); 2].map(|()| client.ask(&get("k"))), [OK, OK]);
    }
    // The one descriptor that is free now goes to a client the server has none for. (One of the
    // crowd that left would free two, as soon as the server noticed.)
    drop(last_descriptor);
    let mut refused = Client::connect(fixture.addr());
    let reply = refused.read_to_end();
    assert!(reply.contains("no descriptor to spare"), "{reply}");
    assert_eq!(client.ask(&get("k")), OK);
    // Nobody waits to be accepted, so there is nothing to be busy with.
    let before = clock.ticks();
    thread::sleep(Duration::from_millis(500));
    let ticks = clock.ticks() - before;
    assert!(ticks <= 4, "busy for {ticks} ticks of 10 ms in half a second");
    drop(crowd);
    drop(refused);
    eventually("new clients are served", || {
        let mut client = fixture.connect();
        let _ = client.stream.write_all((get("k") + "\n").as_bytes());
        client.read_line() == OK
    });
}

#[test]
fn silence_and_slow_requests_end_by_deadline_and_idleness_does_not() {
    let limit = Duration::from_millis(600);
    let options = ServerOptions::new().first_byte_timeout(limit).request_timeout(limit);
    let fixture = Fixture::with("shared-queue", 2, options);
    let mut idle = fixture.connect();
    assert_eq!(idle.ask(&get("k")), OK);

    let start = Instant::now();
    let mut silent = fixture.connect();
    let mut blank = fixture.connect();
    blank.send(" \n ");
    let mut half = fixture.connect();
    assert_eq!(half.ask(&get("k")), OK);
    half.send("{\"Get\"");
    // Progress is no excuse: this one sends a byte every few milliseconds.
    let mut slow = fixture.connect();
    let mut dribbler = slow.stream.try_clone().unwrap();
    let dribbling = thread::spawn(move || {
        for byte in set("k", &"v".repeat(10_000)).bytes() {
            if dribbler.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    });
    let late = "{\"Err\":\"the request did not arrive in time\"}\n";
    for (client, last_words) in
        [(&mut silent, ""), (&mut blank, ""), (&mut half, late), (&mut slow, late)]
    {
        assert_eq!(client.read_line(), last_words);
        // The server counts whole milliseconds.
        let lasted = start.elapsed() + Duration::from_millis(1);
        assert!(lasted >= limit, "cut off after {lasted:?}");
    }
    assert_eq!(half.read_to_end(), "");
    drop(slow);
    assert_eq!(idle.ask(&get("k")), OK, "idle for {:?}", start.elapsed());
    fixture.server.stop(PATIENCE).unwrap();
    dribbling.join().unwrap();
}

/// Replies that are not taken fill a bounded buffer; then the server stops reading.
#[test]
fn a_client_that_does_not_read_is_not_read_from_and_loses_nothing() {
    let fixture = Fixture::with("shared-queue", 2, ServerOptions::new().output_bytes_max(100_000));
    fixture.engine.set_bytes(b"k", &vec![b'v'; 50_000]).unwrap();
    let mut client = fixture.connect();
    client.stream.set_nonblocking(true).unwrap();
    // Padded, so that the buffers of the kernel hold hundreds of them rather than a million.
    let request = get("k") + &" ".repeat(10_000);
    let (mut sent_bytes, mut blocked_since) = (0, Instant::now());
    while blocked_since.elapsed() < Duration::from_millis(300) {
        match client.stream.write(&request.as_bytes()[sent_bytes % request.len()..]) {
            Ok(len) => {
                sent_bytes += len;
                blocked_since = Instant::now();
                assert!(sent_bytes < 1 << 28, "the server takes requests without end");
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(fixture.connect().ask(&get("other")), OK);

    client.stream.set_nonblocking(false).unwrap();
    let rest = request.as_bytes()[sent_bytes % request.len()..].to_vec();
    let mut sender = client.stream.try_clone().unwrap();
    let sending = thread::spawn(move || {
        sender.write_all(&rest).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let reply = format!("{{\"Ok\":\"{}\"}}\n", "v".repeat(50_000));
    let count = sent_bytes / request.len() + 1;
    assert!(count > 20, "only {count} requests were sent");
    assert!(client.read_to_end() == reply.repeat(count));
    sending.join().unwrap();
}

#[test]
fn a_client_that_takes_nothing_is_cut_off_and_others_do_not_notice() {
    let options = ServerOptions::new().stall_timeout(Duration::from_millis(200));
    let fixture = Fixture::with("shared-queue", 2, options);
    fixture.engine.set_bytes(b"k", &vec![b'v'; 1 << 20]).unwrap();
    let mut stalled = fixture.connect();
    stalled.send((get("k") + "\n").repeat(50));
    let mut other = fixture.connect();
    // It goes on sending now and then, which is no excuse, until it learns that it is cut off.
    eventually("the stalled client is cut off", || {
        assert_eq!(other.ask(&get("other")), OK);
        stalled.stream.write_all(b" ").is_err()
    });
    assert_eq!(other.ask(&get("other")), OK);
}

// Failures

#[test]
fn a_panic_in_the_engine_costs_one_connection() {
    for pool in POOLS {
        let fixture = Fixture::of(pool, 1, ServerOptions::new(), |inner| Hooked {
            inner,
            before: |key| assert!(key != b"panic", "on purpose"),
            held: None,
        });
        let mut other = fixture.connect();
        assert_eq!(other.ask(&set("k", "v")), OK);
        for request in [get("panic"), set("panic", ""), remove("panic")] {
            let mut client = fixture.connect();
            client.send(format!("{}\n{request}\n{}\n", get("k"), get("k")));
            let replies = client.read_to_end();
            assert_eq!(replies, "{\"Ok\":\"v\"}\n{\"Err\":\"internal error\"}\n", "{pool}");
            assert_eq!(other.ask(&get("k")), "{\"Ok\":\"v\"}\n", "{pool}");
        }
    }
}

#[test]
fn a_closed_store_is_an_error_and_the_server_goes_on() {
    let fixture = Fixture::new();
    let mut client = fixture.connect();
    fixture.engine.close().unwrap();
    for request in [get("k"), set("k", "v"), remove("k")] {
        assert_eq!(client.ask(&request), "{\"Err\":\"the store is closed\"}\n");
    }
}

#[test]
fn addresses_that_cannot_be_listened_on_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    for addr in [taken.local_addr().unwrap().to_string(), "nonsense".into(), "127.0.0.1".into()] {
        let pool = SharedQueueThreadPool::new(1).unwrap();
        match KvServer::start(store.clone(), pool, addr.clone(), ServerOptions::new()) {
            Err(error @ KvsError::Net { op: "listen on", .. }) => {
                assert!(error.to_string().contains(&addr), "{error}");
            }
            other => panic!("{addr}: {other:?}"),
        }
    }
}

#[test]
fn a_listener_can_be_handed_in_if_it_listens() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let pool = SharedQueueThreadPool::new(1).unwrap();
    let options = ServerOptions::new();
    let server = KvServer::start_on(open(dir.path()), pool, listener, options.clone()).unwrap();
    assert_eq!(server.local_addr(), addr);
    assert_eq!(Client::connect(addr).ask(&get("k")), OK);

    let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let pool = SharedQueueThreadPool::new(1).unwrap();
    match KvServer::start_on(open(dir.path()), pool, deaf.into(), options) {
        Err(KvsError::InvalidOption { name: "listener", .. }) => {}
        other => panic!("{other:?}"),
    }
}

// Writes that wait for the disk

#[test]
fn a_write_that_waits_for_the_disk_holds_no_thread() {
    for pool in POOLS {
        let fixture = Fixture::of(pool, 1, ServerOptions::new(), Hooked::holding);
        let mut writers: Vec<_> = (0..10).map(|_| fixture.connect()).collect();
        for (number, writer) in writers.iter_mut().enumerate() {
            writer.send(set(&number.to_string(), "v") + "\n");
        }
        eventually("every write has reached the engine", || fixture.engine.held_count() == 10);
        // The only thread is free all the while.
        assert_eq!(fixture.connect().ask(&get("0")), OK, "{pool}");
        for writer in &mut writers {
            assert!(writer.is_quiet_for(Duration::from_millis(5)), "{pool}: answered too early");
        }
        fixture.engine.release();
        for writer in &mut writers {
            assert_eq!(writer.read_line(), OK, "{pool}");
        }
        assert_eq!(fixture.engine.len().unwrap(), 10);
    }
}

#[test]
fn pipelined_writes_are_handed_over_together_and_what_follows_waits_for_them() {
    let fixture = Fixture::of("shared-queue", 2, ServerOptions::new(), Hooked::holding);
    let mut client = fixture.connect();
    client.send([set("a", "1"), set("a", "2"), remove("b"), get("a"), set("a", "3")].concat());
    eventually("the first three are there", || fixture.engine.held_count() == 3);
    assert!(client.is_quiet_for(Duration::from_millis(50)));
    assert_eq!(fixture.engine.held_count(), 3, "a write overtook a read");
    fixture.engine.release();
    for reply in [OK, OK, "{\"Err\":\"Key not found\"}\n", "{\"Ok\":\"2\"}\n"] {
        assert_eq!(client.read_line(), reply);
    }
    eventually("the last write is there", || fixture.engine.held_count() == 1);
    fixture.engine.release();
    assert_eq!(client.read_line(), OK);

    // What is refused does not overtake what waits either.
    client.send([set("a", "4"), "{]".to_owned()].concat());
    eventually("the write is there", || fixture.engine.held_count() == 1);
    assert!(client.is_quiet_for(Duration::from_millis(50)));
    fixture.engine.release();
    assert_eq!(client.read_line(), OK);
    assert!(client.read_to_end().starts_with("{\"Err\":\"malformed"));
}

#[test]
fn outcomes_that_come_out_of_order_are_answered_in_order() {
    let fixture = Fixture::of("shared-queue", 2, ServerOptions::new(), Hooked::holding);
    let mut client = fixture.connect();
    client.send([set("a", "1"), remove("nothing"), set("b", "1")].concat());
    eventually("all three are there", || fixture.engine.held_count() == 3);
    for (write, done) in fixture.engine.take_held().into_iter().rev() {
        assert!(client.is_quiet_for(Duration::from_millis(20)), "answered in part");
        fixture.engine.inner.write_then(write, done);
    }
    for reply in [OK, "{\"Err\":\"Key not found\"}\n", OK] {
        assert_eq!(client.read_line(), reply);
    }
}

#[test]
fn a_write_that_the_engine_loses_is_an_internal_error_not_a_hang() {
    let fixture = Fixture::of("shared-queue", 1, ServerOptions::new(), |inner| Hooked {
        before: |key| assert!(key != b"panic", "on purpose"),
        ..Hooked::holding(inner)
    });
    let internal = "{\"Err\":\"internal error\"}\n";
    let mut client = fixture.connect();
    client.send(set("lost", ""));
    eventually("the write is there", || fixture.engine.held_count() == 1);
    drop(fixture.engine.take_held());
    assert_eq!(client.read_to_end(), internal);

    let mut client = fixture.connect();
    client.send([set("k", "v"), set("panic", ""), set("k", "w")].concat());
    eventually("two of three are there", || fixture.engine.held_count() == 2);
    fixture.engine.release();
    assert_eq!(client.read_to_end(), format!("{OK}{internal}"));
}

#[test]
fn stopping_waits_for_writes_under_way() {
    let fixture = Fixture::of("shared-queue", 1, ServerOptions::new(), Hooked::holding);
    let mut client = fixture.connect();
    client.send(set("k", "v") + "\n");
    eventually("the write is there", || fixture.engine.held_count() == 1);
    thread::scope(|scope| {
        let stopping = scope.spawn(|| fixture.server.stop(PATIENCE).unwrap());
        thread::sleep(Duration::from_millis(50));
        assert!(!stopping.is_finished(), "stopped without the reply");
        fixture.engine.release();
        assert_eq!(client.read_to_end(), OK);
    });
}

// Starting and stopping

/// What was done was answered, what was not answered was not done, and no connection was reset.
#[test]
fn stopping_under_load_answers_everything_that_was_read() {
    for pool in POOLS {
        let fixture = Fixture::with(pool, 2, ServerOptions::new());
        let clients: Vec<_> = (0..8)
            .map(|number| {
                let mut client = fixture.connect();
                let mut sender = client.stream.try_clone().unwrap();
                let sending = thread::spawn(move || {
                    let mut request_number = 0_u32;
                    let next = |n: u32| set(&format!("{number}-{n}"), "v") + "\n";
                    // 16 at a time, until the server closes.
                    while sender
                        .write_all(
                            (0..16)
                                .map(|n| next(request_number + n))
                                .collect::<String>()
                                .as_bytes(),
                        )
                        .is_ok()
                    {
                        request_number += 16;
                    }
                });
                let reading = thread::spawn(move || {
                    let replies = client.read_to_end();
                    assert!(replies.ends_with('\n'), "cut in a reply");
                    let count = replies.matches(OK).count();
                    assert_eq!(count * OK.len(), replies.len());
                    client.stream.shutdown(Shutdown::Both).ok();
                    count
                });
                (number, sending, reading)
            })
            .collect();
        let is_served = |number: u8| fixture.engine.contains(format!("{number}-0").as_bytes());
        eventually("every client is served", || (0..8).all(|number| is_served(number).unwrap()));
        fixture.server.stop(PATIENCE).unwrap();
        let mut answered_count = 0;
        for (number, sending, reading) in clients {
            let count = reading.join().unwrap_or_else(|_| panic!("{pool}: a client was reset"));
            sending.join().unwrap();
            assert!(count > 0, "{pool}: client {number} was served and not answered");
            for n in [0, count - 1] {
                let key = format!("{number}-{n}");
                assert!(fixture.engine.contains(key.as_bytes()).unwrap(), "{pool}: {key}");
            }
            answered_count += count;
        }
        let done_count = fixture.engine.len().unwrap();
        assert_eq!(u64::try_from(answered_count).unwrap(), done_count, "{pool}");
    }
}

#[test]
fn stopping_twice_from_many_threads_is_no_error_and_the_store_stays_open() {
    let fixture = Fixture::new();
    let mut idle = fixture.connect();
    assert_eq!(idle.ask(&set("k", "v")), OK);
    assert!(!fixture.server.wait(Some(Duration::from_millis(10))).unwrap());
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| fixture.server.stop(2 * PATIENCE).unwrap());
        }
        scope.spawn(|| assert!(fixture.server.wait(None).unwrap()));
    });
    // An idle client does not use up the drain time.
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    fixture.server.stop(Duration::ZERO).unwrap();
    assert!(fixture.server.wait(Some(Duration::ZERO)).unwrap());
    assert_eq!(idle.read_to_end(), "");
    assert_eq!(fixture.engine.get("k".to_owned()).unwrap().as_deref(), Some("v"));
    let refused = TcpStream::connect(fixture.addr()).map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_client_that_does_not_close_is_cut_off_when_the_drain_is_over() {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    static HELD: AtomicBool = AtomicBool::new(true);
    let fixture = Fixture::of("shared-queue", 2, ServerOptions::new(), |inner| Hooked {
        inner,
        before: |_| {
            BEGUN.store(true, Ordering::SeqCst);
            while HELD.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
        },
        held: None,
    });
    let mut client = fixture.connect();
    client.send(get("k"));
    eventually("the engine works on it", || BEGUN.load(Ordering::SeqCst));
    thread::scope(|scope| {
        let stopping = scope.spawn(|| fixture.server.stop(Duration::from_millis(100)).unwrap());
        thread::sleep(Duration::from_millis(200));
        // Cut off: the connection has ended though the engine still works.
        let mut byte = [0];
        assert!(matches!(client.stream.read(&mut byte), Ok(0) | Err(_)));
        assert!(!stopping.is_finished(), "a thread was left behind");
        HELD.store(false, Ordering::SeqCst);
    });
}

#[test]
fn a_hundred_servers_on_one_port_leave_no_thread_and_no_descriptor() {
    let test = "server::a_hundred_servers_on_one_port_leave_no_thread_and_no_descriptor";
    in_own_process(test, "", || {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        // The first write opens the first segment.
        store.set("n".to_owned(), "0".to_owned()).unwrap();
        let start = |addr: String| {
            let pool = SharedQueueThreadPool::new(2).unwrap();
            KvServer::start(store.clone(), pool, addr, ServerOptions::new()).unwrap()
        };
        let (threads, descriptors) = (thread_count(), descriptor_count());
        let first = start(address_apart());
        let addr = first.local_addr();
        first.stop(PATIENCE).unwrap();
        drop(first);
        for number in 0..100 {
            let server = start(addr.to_string());
            let mut client = KvsClient::connect(addr).unwrap();
            client.set("n".to_owned(), number.to_string()).unwrap();
            assert!(thread_count() > threads);
            // Every tenth server stops under an open client, the others after it.
            if number % 10 != 0 {
                drop(client);
            }
            server.stop(PATIENCE).unwrap();
            // A thread that was joined is listed for a moment longer.
            eventually("its threads are gone", || thread_count() <= threads);
        }
        eventually("no descriptor is left", || descriptor_count() <= descriptors);
        assert_eq!(store.get("n".to_owned()).unwrap().as_deref(), Some("99"));
    });
}

#[test]
fn idle_connections_cost_no_time() {
    in_own_process("server::idle_connections_cost_no_time", "", || {
        let fixture = Fixture::new();
        let mut clients: Vec<_> = (0..300).map(|_| fixture.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.ask(&get("k")), OK);
        }
        let clock = CpuClock::open();
        let before = clock.ticks();
        thread::sleep(Duration::from_secs(1));
        let ticks = clock.ticks() - before;
        assert!(ticks <= 3, "{ticks} ticks of 10 ms in a second");
    });
}

/// Beside their sockets, which are the kernel's.
#[test]
fn idle_connections_cost_little_memory() {
    const COUNT: u64 = 350;
    in_own_process("server::idle_connections_cost_little_memory", "", || {
        // One thread: of two, one may have its first work to do after the warming up.
        let fixture = Fixture::with("shared-queue", 1, ServerOptions::new());
        fixture.engine.set_bytes(b"k", &[b'v'; 10_000]).unwrap();
        // What is in the tail only is copied for each who reads it.
        fixture.engine.sync().unwrap();
        let mut clients = Vec::new();
        let mut more = |count| {
            for _ in 0..count {
                let mut client = fixture.connect();
                assert!(client.ask(&get("k")).len() > 10_000);
                clients.push(client.stream);
            }
        };
        // Threads and allocator warm up.
        more(100);
        let before_kib = status_kib("RssAnon");
        more(COUNT);
        let grown_kib = status_kib("RssAnon") - before_kib;
        // What the threads of the store take meanwhile is in it too.
        assert!(grown_kib <= COUNT * 4 + 256, "{grown_kib} KiB for {COUNT} connections");
    });
}

#[test]
fn dropping_the_server_stops_it() {
    let fixture = Fixture::new();
    let addr = fixture.addr();
    let Fixture { server, engine, .. } = fixture;
    drop(server);
    assert!(TcpStream::connect(addr).is_err());
    engine.set_bytes(b"k", b"v").unwrap();
}

// The client

#[test]
fn client_keeps_its_connection_and_says_what_went_wrong() {
    let fixture = Fixture::new();
    let mut client = KvsClient::connect(fixture.addr()).unwrap();
    assert_eq!(client.get("k".to_owned()).unwrap(), None);
    client.set("k".to_owned(), "v\n\"\u{1f980}".to_owned()).unwrap();
    assert_eq!(client.get("k".to_owned()).unwrap().as_deref(), Some("v\n\"\u{1f980}"));
    client.remove("k".to_owned()).unwrap();
    match client.remove("k".to_owned()) {
        Err(KvsError::KeyNotFound) => {}
        other => panic!("{other:?}"),
    }
    match client.set("k".repeat(kvs::options::KEY_LEN_MAX + 1), String::new()) {
        Err(KvsError::Server { message }) => assert!(message.contains("over the limit")),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.get("k".to_owned()).unwrap(), None);
}

#[test]
fn client_finds_a_server_that_was_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let start = |addr: String| {
        let pool = SharedQueueThreadPool::new(1).unwrap();
        KvServer::start(store.clone(), pool, addr, ServerOptions::new()).unwrap()
    };
    let mut server = start(address_apart());
    let addr = server.local_addr();
    let mut client = KvsClient::connect(addr).unwrap();
    for number in 0..5 {
        client.set("n".to_owned(), number.to_string()).unwrap();
        server.stop(PATIENCE).unwrap();
        server = start(addr.to_string());
    }
    server.stop(PATIENCE).unwrap();
    match client.get("n".to_owned()) {
        Err(error @ KvsError::Net { op: "connect to", .. }) => {
            assert!(error.to_string().contains(&addr.to_string()), "{error}");
        }
        other => panic!("{other:?}"),
    }
    server = start(addr.to_string());
    assert_eq!(client.get("n".to_owned()).unwrap().as_deref(), Some("4"));
    drop(server);
}

/// Something listens, but it is no kvs server.
#[test]
fn client_tells_silence_from_nonsense_and_from_a_closed_connection() {
    type Check = fn(&KvsError) -> bool;
    fn is_protocol(error: &KvsError) -> bool {
        matches!(error, KvsError::Protocol { .. })
    }
    fn is_end(error: &KvsError) -> bool {
        matches!(error, KvsError::Net { source, .. } if source.kind() == ErrorKind::UnexpectedEof)
    }
    fn is_late(error: &KvsError) -> bool {
        matches!(error, KvsError::Net { source, .. } if source.kind() == ErrorKind::TimedOut)
    }
    let soon = Duration::from_millis(300);
    let cases: [(&str, &'static [u8], Duration, Check); 4] = [
        ("garbage", b"HTTP/1.1 400 Bad Request\r\n", PATIENCE, is_protocol),
        ("half a reply", b"{\"Ok\":", PATIENCE, is_protocol),
        ("nothing, then the end", b"", PATIENCE, is_end),
        ("silence", b"wait", soon, is_late),
    ];
    for (name, answer, timeout, is_right) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let other_side = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 64];
            let _ = stream.read(&mut request).unwrap();
            if answer == b"wait" {
                // Until the client gives up.
                let _ = stream.read(&mut request);
            } else {
                stream.write_all(answer).unwrap();
            }
        });
        let mut client = KvsClient::connect_timeout(addr, Some(timeout)).unwrap();
        let error = client.get("k".to_owned()).unwrap_err();
        assert!(is_right(&error), "{name}: {error:?}");
        drop(client);
        other_side.join().unwrap();
    }
    match KvsClient::connect("no address") {
        Err(KvsError::Net { op: "look up", .. }) => {}
        other => panic!("{other:?}"),
    }
    match KvsClient::connect_timeout("127.0.0.1:1", Some(Duration::ZERO)) {
        Err(KvsError::InvalidOption { name: "timeout", .. }) => {}
        other => panic!("{other:?}"),
    }
}
