//! Answers are understood the same however the network cuts them.

use super::*;

const STREAM: &[u8] = b"*3\r\n$3\r\nabc\r\n$-1\r\n$0\r\n\r\n:42\r\n+OK\r\n-STALE epoch 1 < 2\r\n*2\r\n$1\r\n0\r\n*1\r\n$2\r\n\r\n\r\n*0\r\n";

fn parse(stream: &[u8], answers: usize, step: usize) -> (Vec<u8>, Vec<Token>) {
    let (mut parser, mut data) = (Parser::default(), Vec::new());
    parser.expect(answers, KEPT);
    for chunk in stream.chunks(step) {
        data.extend_from_slice(chunk);
        if parser.parse(&mut data).expect("answers") {
            break;
        }
    }
    assert_eq!(parser.answers, 0, "complete");
    (data, parser.tokens)
}

fn texts(data: &[u8], tokens: &[Token]) -> Vec<String> {
    let answers = Answers { address: "a", data, tokens };
    let text = |token: &Token| match (answers.bytes(*token), token) {
        (Some(bytes), _) => String::from_utf8_lossy(bytes).into_owned(),
        (None, token) => format!("{token:?}"),
    };
    tokens.iter().map(text).collect()
}

#[test]
fn answers_are_understood_wherever_the_network_cuts_them() {
    let wanted =
        ["Array(3)", "abc", "Nil", "", "Int(42)", "OK", "STALE epoch 1 < 2", "Array(2)", "0", "Array(1)"];
    let wanted: Vec<&str> = wanted.into_iter().chain(["\r\n", "Array(0)"]).collect();
    for step in 1..=STREAM.len() {
        let (data, tokens) = parse(STREAM, 6, step);
        assert_eq!(texts(&data, &tokens), wanted, "{step}");
    }
}

#[test]
fn an_answer_that_is_too_large_is_passed_over_and_those_after_it_are_not() {
    let mut stream = b"$3\r\nabc\r\n".to_vec();
    stream.extend_from_slice(format!("${}\r\n", 3 * PIECE).as_bytes());
    stream.extend(std::iter::repeat_n(b'x', 3 * PIECE));
    stream.extend_from_slice(b"\r\n*3000\r\n");
    for _ in 0..3000 {
        stream.extend_from_slice(b"$1024\r\n");
        stream.extend(std::iter::repeat_n(b'y', 1024));
        stream.extend_from_slice(b"\r\n");
    }
    stream.extend_from_slice(b"$1\r\nz\r\n");
    for step in [1000, 65_536, 1 << 20] {
        let (data, tokens) = parse(&stream, 4, step);
        assert_eq!(texts(&data, &tokens), ["abc", "Skipped", "Skipped", "z"], "{step}");
        assert!(data.len() < 100, "{}", data.len());
    }
}

#[test]
fn garbage_is_refused() {
    for garbage in [&b"hello\r\n"[..], b"$x\r\n", b":1x\r\n", b"*-\r\n"] {
        let mut parser = Parser::default();
        parser.expect(1, KEPT);
        assert!(parser.parse(&mut garbage.to_vec()).is_err(), "{garbage:?}");
    }
}
