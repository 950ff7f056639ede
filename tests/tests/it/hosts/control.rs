//! Whoever may connect to a host can neither hang it nor make it grow.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use goplug_tests::{LONG, PluginDir, Random, scaled, seed};

use super::{folder, kib, run, shell};

#[tokio::test]
async fn garbage_is_answered_or_cut_off_and_the_host_goes_on() {
    let dir = PluginDir::new();
    let hosted = run(&shell(&dir, "hostile", "exec yes some output")).await;
    let control = folder(&dir).join("hostile.sock");
    let connect = || {
        let stream = UnixStream::connect(&control).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        stream
    };
    let host = hosted.record().host.pid;
    let mut random = Random::new(seed("hosts::control"));
    hosted.status().await.unwrap();
    let before = kib(host, "VmRSS");

    // Who asks for everything, for ever, and reads nothing.
    let mut greedy: Vec<_> = (0..8).map(|_| connect()).collect();
    for stream in &mut greedy {
        stream.write_all(b"{\"do\":\"logs\",\"follow\":true}\n").unwrap();
    }
    for n in 0..scaled(300, 20_000) {
        let mut stream = connect();
        let mut bytes: Vec<u8> = match n % 4 {
            0 => (0..random.below(3000)).map(|_| random.below(256) as u8).collect(),
            1 => vec![b'['; 100_000],
            2 => b"{\"do\":\"stop\",\"killAfterMs\":-1}\n{\"do\":\"signal\",\"number\":2147483648}\n".to_vec(),
            _ => b"{\"do\":\"logs\",\"after\":18446744073709551615}\n\n\n\0\n".to_vec(),
        };
        bytes.push(b'\n');
        // Cut off in the middle is an answer, too.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        if n % 3 == 0 {
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
        }
        if n % 50 == 0 {
            hosted.status().await.unwrap();
        }
    }
    let idle: Vec<_> = (0..scaled(100, 1_000)).map(|_| connect()).collect();
    hosted.status().await.unwrap();
    let grown = kib(host, "VmRSS").saturating_sub(before);
    println!("measured: {grown} KiB more after hostile clients");
    // Eight readers that do not read are owed 64 KiB each.
    assert!(grown <= 2048, "{grown} KiB");
    drop(idle);

    let mut stream = connect();
    stream.write_all(&vec![b'x'; 4097]).unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    assert!(line.contains("invalid_argument") && line.contains("4096 bytes"), "{line}");
    assert!(super::is_alive(hosted.record().plugin.pid));
    tokio::time::timeout(LONG, hosted.stop(Duration::ZERO, LONG)).await.unwrap().unwrap();
}
