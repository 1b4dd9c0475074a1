//! One connection that carries values in bulk: requests encoded into one buffer, answers parsed where they were received.
//! Knows the protocol and how much memory an answer may take; knows no key of the world.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use fortia_common::records;

use crate::RdbError;
use crate::connection::{CONNECT, Wanted};

/// An answer larger than this is passed over, and asked for again by pieces.
pub(super) const PIECE: usize = 1 << 20;
/// All answers kept at once; further ones are passed over as well.
const KEPT: usize = 2 * PIECE;
/// Free room for one read.
const READ: usize = 1 << 18;
/// Longest silence of a server that owes an answer.
const SILENCE: Duration = Duration::from_secs(10);

/// A part of an answer, in the order received; what it says is in the connection's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// So many parts follow.
    Array(u32),
    Bulk {
        at: u32,
        len: u32,
    },
    Nil,
    Int(i64),
    Status {
        at: u32,
        len: u32,
    },
    Error {
        at: u32,
        len: u32,
    },
    /// The whole answer was too large, and is not here.
    Skipped,
}

/// One connection. What is sent is answered in order; answers not taken are dropped before the next request.
pub(super) struct Wire {
    address: String,
    stream: TcpStream,
    out: Vec<u8>,
    sent: usize,
    parser: Parser,
    data: Vec<u8>,
}

/// Answers to the last requests, borrowed from the connection.
#[derive(Clone, Copy)]
pub(super) struct Answers<'a> {
    pub(super) address: &'a str,
    pub(super) data: &'a [u8],
    pub(super) tokens: &'a [Token],
}

impl Wire {
    /// Connects, logs in and makes sure that the server is the one wanted.
    pub(super) async fn open(wanted: &Wanted) -> Result<Wire, RdbError> {
        match tokio::time::timeout(CONNECT, Wire::connect(wanted)).await {
            Ok(wire) => wire,
            Err(_) => Err(wanted.silent(CONNECT)),
        }
    }

    async fn connect(wanted: &Wanted) -> Result<Wire, RdbError> {
        let address = wanted.address.clone();
        let stream = TcpStream::connect(&address).await.map_err(|e| unreachable(&address, &e))?;
        stream.set_nodelay(true).map_err(|e| unreachable(&address, &e))?;
        let (out, data, parser) = (Vec::new(), Vec::new(), Parser::default());
        let mut wire = Wire { address, stream, out, sent: 0, parser, data };
        if !wanted.login.password.is_empty() {
            wire.command(&[b"AUTH", wanted.login.user.as_bytes(), wanted.login.password.as_bytes()]);
            wire.flush().await?;
            wire.answers().await?.refused()?;
        }
        wire.command(&[b"HMGET", records::GUARD.as_bytes(), b"uid", b"group", b"index"]);
        wire.flush().await?;
        let answers = wire.answers().await?;
        answers.refused()?;
        let found: Vec<&[u8]> = answers.tokens.iter().filter_map(|token| answers.bytes(*token)).collect();
        let index = wanted.index.to_string();
        if found == [wanted.login.cluster.as_bytes(), wanted.group.as_bytes(), index.as_bytes()] {
            return Ok(wire);
        }
        Err(RdbError::Foreign {
            address: wanted.address.clone(),
            expected: format!("{} {} {index}", wanted.login.cluster, wanted.group),
            found: format!("its guard is of {}", String::from_utf8_lossy(&found.join(&b' '))),
        })
    }

    /// Begins a request of so many arguments, the command's name among them.
    pub(super) fn begin(&mut self, arguments: usize) {
        self.sent += 1;
        header(&mut self.out, b'*', arguments as u64);
    }

    pub(super) fn arg(&mut self, argument: &[u8]) {
        header(&mut self.out, b'$', argument.len() as u64);
        self.out.extend_from_slice(argument);
        self.out.extend_from_slice(b"\r\n");
    }

    /// An argument made of two parts, as a key of its version and its text.
    pub(super) fn joined(&mut self, first: &[u8], second: &[u8]) {
        header(&mut self.out, b'$', (first.len() + second.len()) as u64);
        self.out.extend_from_slice(first);
        self.out.extend_from_slice(second);
        self.out.extend_from_slice(b"\r\n");
    }

    pub(super) fn number(&mut self, number: u64) {
        let mut digits = [0; 20];
        self.arg(decimal(&mut digits, number));
    }

    /// A whole request.
    pub(super) fn command(&mut self, arguments: &[&[u8]]) {
        self.begin(arguments.len());
        arguments.iter().for_each(|argument| self.arg(argument));
    }

    /// Whether anything was encoded and not sent yet, or sent and not answered yet.
    pub(super) fn is_idle(&self) -> bool {
        self.sent == 0
    }

    /// Sends what was encoded.
    pub(super) async fn flush(&mut self) -> Result<(), RdbError> {
        if self.out.is_empty() {
            return Ok(());
        }
        let written = tokio::time::timeout(SILENCE, self.stream.write_all(&self.out)).await;
        self.out.clear();
        // A batch may hold one huge value: that much memory is not kept for ever.
        self.out.shrink_to(2 * PIECE);
        match written {
            Ok(written) => written.map_err(|error| unreachable(&self.address, &error)),
            Err(_) => Err(self.silent()),
        }
    }

    /// The answers to all requests since the last time.
    pub(super) async fn answers(&mut self) -> Result<Answers<'_>, RdbError> {
        self.parser.expect(std::mem::take(&mut self.sent), KEPT);
        self.take().await
    }

    /// As [`Wire::answers`], however large they are: for those who ask for little enough.
    pub(super) async fn all_answers(&mut self) -> Result<Answers<'_>, RdbError> {
        self.parser.expect(std::mem::take(&mut self.sent), usize::MAX);
        self.take().await
    }

    async fn take(&mut self) -> Result<Answers<'_>, RdbError> {
        self.flush().await?;
        self.data.clear();
        self.data.shrink_to(2 * KEPT);
        while !self.parser.parse(&mut self.data).map_err(|reason| self.garbled(reason))? {
            self.data.reserve(READ);
            match tokio::time::timeout(SILENCE, self.stream.read_buf(&mut self.data)).await {
                Ok(Ok(0)) => return Err(self.lost("the connection was closed")),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(unreachable(&self.address, &error)),
                Err(_) => return Err(self.silent()),
            }
        }
        Ok(Answers { address: &self.address, data: &self.data, tokens: &self.parser.tokens })
    }

    /// Drops what an earlier, failed batch left: requests not sent and answers not taken.
    pub(super) async fn settle(&mut self) -> Result<(), RdbError> {
        if !self.is_idle() {
            self.answers().await?;
        }
        Ok(())
    }

    fn silent(&self) -> RdbError {
        self.lost("no answer in time")
    }

    fn lost(&self, reason: &str) -> RdbError {
        RdbError::Unreachable { address: self.address.clone(), reason: reason.into() }
    }

    fn garbled(&self, reason: &str) -> RdbError {
        RdbError::Refused { address: self.address.clone(), reason: format!("unexpected answer: {reason}") }
    }
}

impl<'a> Answers<'a> {
    /// The bytes of a part that has some.
    pub(super) fn bytes(&self, token: Token) -> Option<&'a [u8]> {
        match token {
            Token::Bulk { at, len } | Token::Status { at, len } | Token::Error { at, len } => {
                self.data.get(at as usize..(at + len) as usize)
            }
            _ => None,
        }
    }

    /// The first refusal among the answers, as an error.
    pub(super) fn refused(&self) -> Result<(), RdbError> {
        let error = self.tokens.iter().find(|token| matches!(token, Token::Error { .. }));
        error.map_or(Ok(()), |token| Err(self.refusal(*token)))
    }

    /// What a refusal means.
    pub(super) fn refusal(&self, token: Token) -> RdbError {
        let text = String::from_utf8_lossy(self.bytes(token).unwrap_or_default());
        let (code, detail) = text.split_once(' ').unwrap_or((&text, ""));
        RdbError::refusal(self.address, code, detail)
    }

    /// The only number among the answers.
    pub(super) fn int(&self) -> Result<u64, RdbError> {
        self.refused()?;
        match self.tokens {
            [Token::Int(number)] => Ok(u64::try_from(*number).unwrap_or_default()),
            other => Err(RdbError::Refused {
                address: self.address.to_owned(),
                reason: format!("unexpected answer: {other:?} is no number"),
            }),
        }
    }
}

fn unreachable(address: &str, error: &std::io::Error) -> RdbError {
    RdbError::Unreachable { address: address.to_owned(), reason: error.to_string() }
}

fn header(out: &mut Vec<u8>, kind: u8, number: u64) {
    let mut digits = [0; 20];
    out.push(kind);
    out.extend_from_slice(decimal(&mut digits, number));
    out.extend_from_slice(b"\r\n");
}

fn decimal(digits: &mut [u8; 20], mut number: u64) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// Where in a stream of answers a reader is.
#[derive(Default)]
pub(super) struct Parser {
    pub(super) tokens: Vec<Token>,
    /// Answers that are not complete yet, the current one included.
    answers: usize,
    /// Parts the current answer still has.
    parts: u64,
    /// Up to where the buffer is understood.
    at: usize,
    /// Where in buffer and tokens the current answer begins.
    begun: (usize, usize),
    skipping: bool,
    /// Bytes of a value passed over that are still to come.
    passing: usize,
    /// Bytes kept of all answers.
    kept: usize,
}

impl Parser {
    /// Begins with an empty buffer, and so many answers to come, of which so many bytes are kept.
    pub(super) fn expect(&mut self, answers: usize, kept: usize) {
        self.tokens.clear();
        *self = Parser { tokens: std::mem::take(&mut self.tokens), answers, kept, ..Parser::default() };
        self.parts = u64::from(answers > 0);
    }

    /// Understands what is in the buffer. True once all answers are complete.
    pub(super) fn parse(&mut self, data: &mut Vec<u8>) -> Result<bool, &'static str> {
        while self.answers > 0 {
            if !self.part(data)? {
                // Only what is not understood yet stays of an answer that is too large.
                self.skipping |= data.len() - self.begun.0 > self.room();
                self.forget(data);
                return Ok(false);
            }
            if self.parts == 0 {
                if self.skipping {
                    self.forget(data);
                    self.tokens.push(Token::Skipped);
                    self.skipping = false;
                }
                self.answers -= 1;
                self.parts = u64::from(self.answers > 0);
                self.begun = (self.at, self.tokens.len());
            }
        }
        Ok(true)
    }

    /// Bytes the current answer may have.
    fn room(&self) -> usize {
        let left = self.kept.saturating_sub(self.begun.0);
        if self.kept == usize::MAX { left } else { left.min(PIECE) }
    }

    fn forget(&mut self, data: &mut Vec<u8>) {
        if self.skipping && self.at > self.begun.0 {
            data.drain(self.begun.0..self.at);
            self.at = self.begun.0;
            self.tokens.truncate(self.begun.1);
        }
    }

    /// Understands one part more; false when it is not all there.
    fn part(&mut self, data: &[u8]) -> Result<bool, &'static str> {
        if self.passing > 0 {
            let there = self.passing.min(data.len() - self.at);
            self.at += there;
            self.passing -= there;
            return Ok(self.passing == 0 && self.counted(Token::Skipped));
        }
        let rest = &data[self.at..];
        let Some(end) = line(rest) else { return Ok(false) };
        let (kind, text) = (rest[0], &rest[1..end]);
        let begins = self.at + 1;
        let told = (u32::try_from(begins).map_err(|_| "an answer is too long")?, text.len() as u32);
        let after = self.at + end + 2;
        let token = match kind {
            b'$' | b'*' => match signed(text).ok_or("a length is not a number")? {
                ..0 => Token::Nil,
                parts if kind == b'*' => {
                    self.parts += parts as u64;
                    Token::Array(u32::try_from(parts).map_err(|_| "an array is too long")?)
                }
                len => return self.bulk(data, after, len as usize),
            },
            b':' => Token::Int(signed(text).ok_or("a number is not one")?),
            b'+' => Token::Status { at: told.0, len: told.1 },
            b'-' => Token::Error { at: told.0, len: told.1 },
            _ => return Err("an answer of an unknown kind"),
        };
        self.at = after;
        Ok(self.counted(token))
    }

    fn bulk(&mut self, data: &[u8], at: usize, len: usize) -> Result<bool, &'static str> {
        let end = at + len + 2;
        if data.len() >= end {
            self.at = end;
            return Ok(self.counted(Token::Bulk { at: at as u32, len: len as u32 }));
        }
        if self.skipping || len > self.room() {
            self.skipping = true;
            self.passing = end - data.len();
            self.at = data.len();
        }
        Ok(false)
    }

    fn counted(&mut self, token: Token) -> bool {
        self.parts -= 1;
        if !self.skipping {
            self.tokens.push(token);
        }
        true
    }
}

/// Where the first line ends.
fn line(data: &[u8]) -> Option<usize> {
    // Lines are a few digits long, except refusals.
    let end = data.iter().position(|byte| *byte == b'\r')?;
    (data.len() > end + 1).then_some(end)
}

fn signed(text: &[u8]) -> Option<i64> {
    let (digits, sign) = text.strip_prefix(b"-").map_or((text, 1), |digits| (digits, -1));
    if digits.is_empty() {
        return None;
    }
    let add = |number: i64, digit: &u8| {
        digit.is_ascii_digit().then(|| number.checked_mul(10)?.checked_add(i64::from(digit - b'0')))?
    };
    digits.iter().try_fold(0, add).map(|number| number * sign)
}

#[cfg(test)]
mod tests;
