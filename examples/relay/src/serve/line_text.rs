//! The time and the fields of a line of the log in text, as `tracing-subscriber` writes them without colors.
//!
//! Each call has a line, with a dozen fields. Numbers and plain words are written in a shorter way than values of any kind,
//! and the text of a second is kept for all lines of it.

use std::{
    cell::RefCell,
    fmt::{self, Debug},
    time::{Duration, UNIX_EPOCH},
};

use tower_gemini::clock;
use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::{RecordFields, VisitOutput},
    fmt::{
        FormattedFields,
        format::{DefaultVisitor, FormatFields, Writer},
        time::{FormatTime, SystemTime},
    },
};

// === the time ===

/// The time of a line.
pub(crate) struct LineTime;

/// The end of a time's text, behind the second.
const BEHIND_SECOND: &str = ".000000Z";

impl FormatTime for LineTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        thread_local! {
            static LAST: RefCell<TextOfSecond> = RefCell::default();
        }
        LAST.with_borrow_mut(|last| last.write(writer))
    }
}

/// The text of a second.
#[derive(Default)]
struct TextOfSecond {
    second: Option<u64>,
    text: FormattedFields<LineTime>,
}

impl TextOfSecond {
    fn write(&mut self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = since_1970();
        if self.second == Some(now.as_secs()) {
            writer.write_str(&self.text)?;
            let mut behind = String::with_capacity(BEHIND_SECOND.len());
            behind.push('.');
            push_number(&mut behind, now.subsec_micros().into(), 6);
            behind.push('Z');
            return writer.write_str(&behind);
        }
        self.second = None;
        self.text.fields.clear();
        SystemTime.format_time(&mut self.text.as_writer())?;
        writer.write_str(&self.text)?;
        // The clock has been read twice, and may have come to another second in between.
        self.second = Some(now.as_secs()).filter(|second| *second == since_1970().as_secs());
        let end = self.text.len().saturating_sub(BEHIND_SECOND.len());
        self.text.fields.truncate(end);
        Ok(())
    }
}

fn since_1970() -> Duration {
    clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Adds a number, with as many zeros before it as `width` asks for.
fn push_number(text: &mut String, number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let (mut rest, mut at) = (number, digits.len());
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let start = at.min(digits.len() - width);
    text.extend(digits[start..].iter().map(|digit| char::from(*digit)));
}

// === the fields ===

/// The fields of a line.
pub(crate) struct LineFields;

impl<'writer> FormatFields<'writer> for LineFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut written = WrittenFields { text: FormattedFields::new(String::with_capacity(256)), result: Ok(()) };
        fields.record(&mut written);
        written.result?;
        writer.write_str(&written.text)
    }
}

/// The fields that are written so far. Their text is one of `tracing-subscriber`, which gives out a [`Writer`] for its own
/// texts only, and without one there is no [`DefaultVisitor`].
struct WrittenFields {
    text: FormattedFields<LineFields>,
    result: fmt::Result,
}

impl WrittenFields {
    /// Begins a field, if it has the shorter way: its name stands there as it is.
    fn begin(&mut self, field: &Field) -> Option<&mut String> {
        let name = field.name();
        if name == "message" || name.starts_with("r#") || name.starts_with("log.") {
            return None;
        }
        let text = &mut self.text.fields;
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(name);
        text.push('=');
        Some(text)
    }

    fn add_any(&mut self, record: impl FnOnce(&mut DefaultVisitor<'_>)) {
        let is_empty = self.text.is_empty();
        let mut visitor = DefaultVisitor::new(self.text.as_writer(), is_empty);
        record(&mut visitor);
        self.result = self.result.and(visitor.finish());
    }
}

impl Visit for WrittenFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        match value.bytes().all(is_plain).then(|| self.begin(field)).flatten() {
            Some(text) => {
                text.push('"');
                text.push_str(value);
                text.push('"');
            }
            None => self.add_any(|visitor| visitor.record_str(field, value)),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match self.begin(field) {
            Some(text) => push_number(text, value, 1),
            None => self.add_any(|visitor| visitor.record_u64(field, value)),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match self.begin(field) {
            Some(text) => text.push_str(if value { "true" } else { "false" }),
            None => self.add_any(|visitor| visitor.record_bool(field, value)),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add_any(|visitor| visitor.record_error(field, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add_any(|visitor| visitor.record_debug(field, value));
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use parking_lot::Mutex;
    use tracing_subscriber::fmt::format::DefaultFields;

    use super::*;

    /// A log that keeps its text.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged<F>(fields: F) -> String
    where
        F: for<'writer> FormatFields<'writer> + Send + Sync + 'static,
    {
        let log = Log::default();
        let to = log.clone();
        let lines = tracing_subscriber::fmt().without_time().with_ansi(false).compact().fmt_fields(fields);
        tracing::subscriber::with_default(lines.with_writer(move || to.clone()).finish(), || {
            let error = io::Error::other("broken");
            tracing::info!(
                word = "a name",
                number = 7,
                large = u64::MAX,
                negative = -1,
                yes = true,
                none = None::<u64>,
                "call"
            );
            tracing::info!(quoted = "a \"name\"", lines = "a\nb\\", other = "naïve\u{7f}", empty = "", no = false);
            tracing::warn!(r#type = "x", r#match = 1_u64, shown = %"as it is", debugged = ?Some("x"), "{}", "in\u{1b}words");
            tracing::error!(
                error = &error as &(dyn std::error::Error + 'static),
                "log.target" = "x",
                ratio = 0.5,
                "with an error"
            );
            let _span = tracing::info_span!("span", name = "n", later = tracing::field::Empty).entered();
            tracing::Span::current().record("later", 2_u64);
            tracing::info!("within");
        });
        let text = log.0.lock().clone();
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn fields_are_written_as_any_other_program_writes_them() {
        let text = logged(LineFields);
        assert_eq!(text, logged(DefaultFields::new()));
        assert!(text.contains("call word=\"a name\" number=7 "), "{text}");
    }

    #[test]
    fn a_number_has_all_of_its_digits() {
        for (number, width, text) in [(0, 1, "0"), (7, 1, "7"), (10, 1, "10"), (42, 6, "000042"), (0, 6, "000000")] {
            let mut written = String::new();
            push_number(&mut written, number, width);
            assert_eq!(written, text);
        }
        let mut written = String::new();
        push_number(&mut written, u64::MAX, 1);
        assert_eq!(written, u64::MAX.to_string());
    }

    #[test]
    fn the_time_of_a_line_goes_on_and_is_that_of_the_clock() {
        let text = |time: &dyn Fn(&mut Writer<'_>) -> fmt::Result| {
            let mut text = FormattedFields::<LineTime>::new(String::new());
            time(&mut text.as_writer()).expect("a time");
            text.fields
        };
        let mut last = String::new();
        for _ in 0..2_000 {
            let before = text(&|writer| SystemTime.format_time(writer));
            let now = text(&|writer| LineTime.format_time(writer));
            let after = text(&|writer| SystemTime.format_time(writer));
            assert!(last <= before && before <= now && now <= after, "{before} {now} {after}");
            assert_eq!(now.len(), after.len());
            last = now;
        }
    }
}
