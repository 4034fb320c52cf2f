//! The time and the fields of a line of the log in text, as `tracing-subscriber` writes them without colors.
//!
//! Each call has a line, with a dozen fields. The time, numbers and plain words are written in shorter ways than values of any
//! kind.

use std::{
    fmt::{self, Debug},
    time::{SystemTime, UNIX_EPOCH},
};

use tower_gemini::clock;
use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::{RecordFields, VisitOutput},
    fmt::{
        FormattedFields,
        format::{DefaultVisitor, FormatFields, Writer},
        time::FormatTime,
    },
};

// === the time ===

/// The time of a line.
pub(crate) struct LineTime;

impl FormatTime for LineTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write_time(clock::wall(), writer)
    }
}

fn write_time(now: SystemTime, writer: &mut Writer<'_>) -> fmt::Result {
    // An earlier time has no such text.
    write!(writer, "{}", humantime::format_rfc3339_micros(now.max(UNIX_EPOCH)))
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

/// The fields that are written so far. Their text is a [`FormattedFields`], because a [`DefaultVisitor`] needs a [`Writer`],
/// whose `new` is private.
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
            Some(text) => push_number(text, value),
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

/// Adds a number.
fn push_number(text: &mut String, number: u64) {
    let mut digits = [b'0'; 20];
    let (mut rest, mut at) = (number, digits.len());
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let start = at.min(digits.len() - 1);
    text.extend(digits[start..].iter().map(|digit| char::from(*digit)));
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc, time::Duration};

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
        for number in [0, 7, 10, 42, 1_000_000, u64::MAX] {
            let mut text = String::new();
            push_number(&mut text, number);
            assert_eq!(text, number.to_string());
        }
    }

    #[test]
    fn a_time_is_written_as_any_other_program_writes_it() {
        let text = |time: &dyn Fn(&mut Writer<'_>) -> fmt::Result| {
            let mut text = FormattedFields::<LineTime>::new(String::new());
            time(&mut text.as_writer()).expect("a time");
            text.fields
        };
        let at = |micros| text(&|writer| write_time(UNIX_EPOCH + Duration::from_micros(micros), writer));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(1_709_251_199_999_999), "2024-02-29T23:59:59.999999Z");
        assert_eq!(at(1_709_251_200_000_042), "2024-03-01T00:00:00.000042Z");
        assert_eq!(text(&|writer| write_time(UNIX_EPOCH - Duration::from_secs(1), writer)), at(0));
        let form = |text: String| text.replace(|digit: char| digit.is_ascii_digit(), "0");
        let other = text(&|writer| tracing_subscriber::fmt::time::SystemTime.format_time(writer));
        assert_eq!(form(text(&|writer| LineTime.format_time(writer))), form(other));
    }
}
