//! Reads pages of HTML, which front ends and proxies send instead of JSON.
//!
//! It keeps what a person would read, the title and the first sentences, and drops tags, scripts and styles.

/// Returns whether the text is a page, or the beginning of one.
pub(super) fn is_html(text: &str) -> bool {
    let start = text.as_bytes();
    let start = String::from_utf8_lossy(&start[..start.len().min(512)]).to_ascii_lowercase();
    start.starts_with('<')
        && ["<html", "<!doctype", "<head", "<body", "<title", "<center", "<h1", "<p", "<div", "<meta"]
            .iter()
            .any(|tag| start.contains(tag))
        || start.contains("<html")
        || start.contains("<!doctype html")
}

/// Returns the title and the visible text with white space collapsed, in about `most` bytes.
pub(super) fn visible_text(page: &str, most: usize) -> String {
    let mut text = String::new();
    let mut rest = page;
    while text.len() < most {
        let Some(open) = rest.find('<') else {
            push_words(&mut text, rest);
            break;
        };
        push_words(&mut text, &rest[..open]);
        let tag = &rest[open..];
        // The content of these is not for reading. One that never ends holds the rest of the page.
        let end = if has_name(tag, "script") {
            tag.find("</script").map(|at| at + 1)
        } else if has_name(tag, "style") {
            tag.find("</style").map(|at| at + 1)
        } else if tag.starts_with("<!--") {
            tag.find("-->").map(|at| at + 2)
        } else {
            Some(0)
        };
        let Some(end) = end.and_then(|end| Some(end + tag[end..].find('>')? + 1)) else {
            break;
        };
        rest = &tag[end..];
    }
    text
}

fn has_name(tag: &str, name: &str) -> bool {
    tag.get(1..=name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

fn push_words(text: &mut String, more: &str) {
    for word in more.split_whitespace() {
        if !text.is_empty() {
            text.push(' ');
        }
        push_unescaped(text, word);
    }
}

fn push_unescaped(text: &mut String, mut word: &str) {
    const ENTITIES: [(&str, &str); 8] = [
        ("&amp;", "&"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&nbsp;", " "),
        ("&rsquo;", "’"),
    ];
    while let Some(at) = word.find('&') {
        text.push_str(&word[..at]);
        word = &word[at..];
        match ENTITIES.iter().find(|(entity, _)| word.starts_with(entity)) {
            Some((entity, meaning)) => {
                text.push_str(meaning);
                word = &word[entity.len()..];
            }
            None => {
                text.push('&');
                word = &word[1..];
            }
        }
    }
    text.push_str(word);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_becomes_what_a_person_reads() {
        let page = "<!DOCTYPE html>\n<html lang=en>\n <title>Error 502 (Server Error)!!1</title>\n <style>*{margin:0}</style>\
                    <script>if (a<b) {}</script><!-- x > y -->\n <p><b>502.</b> <ins>That&#39;s an error.</ins>\n</html>";
        assert!(is_html(page));
        assert_eq!(visible_text(page, 2048), "Error 502 (Server Error)!!1 502. That's an error.");
        assert!(visible_text(page, 5).len() < 40);
    }

    #[test]
    fn cut_pages_give_what_they_have() {
        assert_eq!(visible_text("<html><title>502 Bad Gate", 99), "502 Bad Gate");
        assert_eq!(visible_text("<html><p>hello <scr", 99), "hello");
        assert_eq!(visible_text("<html><p>hello <script>x", 99), "hello");
        assert_eq!(visible_text("<p>a &unknown; b&", 99), "a &unknown; b&");
    }

    #[test]
    fn xml_and_text_are_no_pages() {
        for text in ["<?xml version='1.0'?><Error/>", "plain", "<xml>", "", "{}"] {
            assert!(!is_html(text), "{text}");
        }
    }
}
