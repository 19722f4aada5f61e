//! A parser of server-sent events.
//!
//! Existing crates buffer lines of any length and hide comments. This parser bounds its buffer, and its caller sees
//! each byte arrive. The grammar is that of the HTML standard, section "Server-sent events".

use std::collections::VecDeque;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// An event; its data lines are joined by line feeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Whether the event's name is `error`.
    pub(super) is_error: bool,
    pub(super) data: String,
}

/// The error of an event that exceeds the size limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EventTooLong;

/// A parser that holds at most one unfinished event.
#[derive(Debug)]
pub(super) struct EventReader {
    max_bytes: usize,
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    is_error: bool,
    /// Whether the last byte was a carriage return, which a line feed may follow.
    after_cr: bool,
    is_first_line: bool,
}

impl EventReader {
    /// Creates a parser of events with at most `max_bytes`.
    pub(super) const fn new(max_bytes: usize) -> Self {
        Self { max_bytes, line: Vec::new(), data: None, is_error: false, after_cr: false, is_first_line: true }
    }

    /// Parses bytes, and appends the events that they complete.
    pub(super) fn push(&mut self, mut bytes: &[u8], events: &mut VecDeque<Event>) -> Result<(), EventTooLong> {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.extend(&bytes[..end])?;
            let is_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if is_cr {
                self.after_cr = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
            events.extend(self.end_line());
        }
        self.extend(bytes)
    }

    /// Returns the unfinished event at the end of the stream, because endpoints omit the last blank line.
    pub(super) fn end(&mut self) -> Option<Event> {
        self.end_line().or_else(|| self.end_line())
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), EventTooLong> {
        let held = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        if held + bytes.len() > self.max_bytes {
            return Err(EventTooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let line =
            if std::mem::take(&mut self.is_first_line) { line.strip_prefix(BOM).unwrap_or(&line) } else { &line };
        if line.is_empty() {
            let is_error = std::mem::take(&mut self.is_error);
            return self.data.take().map(|data| Event { is_error, data: String::from_utf8_lossy(&data).into_owned() });
        }
        let (field, value) = line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            },
            b"event" => self.is_error = value == b"error",
            // Comments and unused fields are ignored.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<Event> {
        let (mut reader, mut events) = (EventReader::new(1_000), VecDeque::new());
        for piece in pieces {
            reader.push(piece, &mut events).unwrap();
        }
        events.extend(reader.end());
        events.into()
    }

    fn data(text: &str) -> Event {
        Event { is_error: false, data: text.to_owned() }
    }

    #[test]
    fn events_of_all_forms_are_parsed() {
        assert_eq!(read(&[b"data: a\n\ndata:b\r\n\r\ndata:  c\r\r"]), [data("a"), data("b"), data(" c")]);
        assert_eq!(read(&[b"\xef\xbb\xbfdata: a\n\n"]), [data("a")], "a byte order mark");
        assert_eq!(read(&[b": comment\n\n\n\nid: 7\nretry: 3\ndata\n\n"]), [data("")]);
        assert_eq!(read(&[b"data: {\ndata: }\n\n"]), [data("{\n}")]);
        assert_eq!(
            read(&[b"event: error\ndata: x\n\ndata: y\n\n"]),
            [Event { is_error: true, data: "x".to_owned() }, data("y")]
        );
        assert_eq!(read(&[b"data: cut"]), [data("cut")], "no blank line at the end");
        assert_eq!(read(&[b"data: cut\n"]), [data("cut")]);
        assert_eq!(read(&[b"data: a\r", b"\n\r", b"\ndata: b\n\n"]), [data("a"), data("b")]);
        assert_eq!(read(&[b"data: \xff\n\n"]), [data("\u{fffd}")]);
    }

    #[test]
    fn an_event_without_an_end_is_bounded() {
        let (mut reader, mut events) = (EventReader::new(100), VecDeque::new());
        for _ in 0..50 {
            reader.push(b"data: 0123456789\n\n", &mut events).unwrap();
        }
        assert_eq!(events.len(), 50);
        let pushed = (0..50).try_for_each(|_| reader.push(b"data: 0123456789\n", &mut events));
        assert_eq!(pushed, Err(EventTooLong));
        assert_eq!(EventReader::new(100).push(&[b'x'; 101], &mut events), Err(EventTooLong));
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_yield_the_same_events(
            lines in proptest::collection::vec("(data: ?|event: |: |)[a-cé]{0,5}(\n|\r\n|\r)", 0..30),
            cuts in proptest::collection::vec(0..200_usize, 0..10),
        ) {
            let whole = lines.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&whole[from..cut]);
                from = cut;
            }
            pieces.push(&whole[from..]);
            prop_assert_eq!(read(&pieces), read(&[&whole]));
        }
    }
}
