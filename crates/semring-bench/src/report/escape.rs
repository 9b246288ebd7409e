//! Text within HTML and SVG.

/// The text with everything escaped that has a meaning in an element or in a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_can_not_be_left() {
        assert_eq!(
            escape("\" onclick='f(1 < 2 && 3 > 2)'"),
            "&quot; onclick=&#39;f(1 &lt; 2 &amp;&amp; 3 &gt; 2)&#39;"
        );
    }
}
