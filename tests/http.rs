//! The smallest HTTP client that a test needs.

use std::io::{Read, Write};
use std::net::TcpStream;

/// Head and body of what a server answers to a GET; the body of a chunked answer without the marks of its chunks.
pub(crate) fn get(address: &str, path: &str) -> (String, String) {
    let mut connection = TcpStream::connect(address).unwrap();
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return (head.to_owned(), body.to_owned());
    }
    let mut whole = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    (head.to_owned(), whole)
}
