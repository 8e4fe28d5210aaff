//! No form of a secret survives, however it is cut.

use std::borrow::Cow;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{MASK, MASKED_BYTES_MIN, MaskerError, PATTERN_BYTES_MAX, is_too_short};
use super::*;

fn masker(secrets: &[&str]) -> Masker {
    Masker::new(secrets).unwrap()
}

#[track_caller]
fn check_mask(secrets: &[&str], text: &str, expected: &str) {
    let masker = masker(secrets);
    assert_eq!(String::from_utf8_lossy(&masker.mask(text.as_bytes())), expected);
    for cut in 0..=text.len() {
        let (one, two) = text.as_bytes().split_at(cut);
        assert_eq!(String::from_utf8_lossy(&masked_in_pieces(&masker, [one, two])), expected, "cut at {cut}");
    }
}

fn masked_in_pieces<'a>(masker: &Masker, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut masked = Vec::new();
    let mut stream = masker.stream().unwrap();
    for piece in pieces {
        stream.push(piece, &mut |bytes| masked.extend_from_slice(bytes));
    }
    stream.finish(&mut |bytes| masked.extend_from_slice(bytes));
    masked
}

#[test]
fn plain_and_within_other_text() {
    check_mask(&["hunter2"], "password=hunter2;hunter hunter2hunter2", "password=***;hunter ******");
}

#[test]
fn the_longest_wins() {
    check_mask(&["abcd", "abcdefgh"], "abcdefgh abcdefg", "*** ***efg");
}

#[test]
fn base64_at_each_of_three_places() {
    // What base64 prints for `s3cr3t-value`, `:s3cr3t-value`, `u:s3cr3t-value` and `me:s3cr3t-value\n`.
    check_mask(&["s3cr3t-value"], "czNjcjN0LXZhbHVl", "***");
    check_mask(&["s3cr3t-value"], "OnMzY3IzdC12YWx1ZQ==", "On***Q==");
    check_mask(&["s3cr3t-value"], "dTpzM2NyM3QtdmFsdWU=", "dTp***U=");
    check_mask(&["s3cr3t-value"], "bWU6czNjcjN0LXZhbHVlCg==", "bWU6***Cg==");
}

#[test]
fn padding_is_masked_with_the_whole() {
    check_mask(&["s3cr3t"], "czNjcjN0", "***");
    check_mask(&["s3cr3"], "czNjcjM= czNjcjM", "*** ***");
    check_mask(&["\u{ff}\u{fe}\u{fb}\u{ff}ab"], "w7_DvsO7w79hYg w7/DvsO7w79hYg==", "*** ***");
}

#[test]
fn hexadecimal_url_json_and_shell() {
    check_mask(&["a/b c\"d'"], "612f622063226427 612F622063226427", "*** ***");
    check_mask(&["a/b c\"d'"], "a%2Fb%20c%22d%27 a%2fb%20c%22d%27 a%2Fb+c%22d%27 a%2Fb%20c%22d'", "*** *** *** ***");
    check_mask(&["a/b c\"d'"], r#"{"key":"a/b c\"d'"}"#, r#"{"key":"***"}"#);
    check_mask(&["a/b c\"d'"], r#"'a/b c"d'\'''"#, "'***'");
}

#[test]
fn quotation_marks_are_doubled() {
    let secret = r#"it's a "word""#;
    check_mask(&[secret], r#"password: 'it''s a "word"'"#, "password: '***'");
    check_mask(&[secret], r#"ann,"it's a ""word""",x"#, r#"ann,"***",x"#);
}

#[test]
fn quoted_as_shells_and_what_writes_for_them_do() {
    let secret = "pa$$w\"ord/ü's&1";
    for (by, text, expected) in [
        ("export -p of bash", r#"declare -x PW="pa\$\$w\"ord/ü's&1""#, r#"declare -x PW="***""#),
        ("export -p of dash, shlex.quote", r#"export PW='pa$$w"ord/ü'"'"'s&1'"#, "export PW='***'"),
        ("printf %q", r#"pa\$\$w\"ord/ü\'s\&1"#, "***"),
        ("bash where the locale is C", r#"PW=$'pa$$w"ord/\303\274\'s&1'"#, "PW=$'***'"),
        ("fish, repr", r#"'pa$$w"ord/ü\'s&1'"#, "'***'"),
    ] {
        assert_eq!(String::from_utf8_lossy(&masker(&[secret]).mask(text.as_bytes())), expected, "{by}");
        check_mask(&[secret], text, expected);
    }
    let all = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ a";
    let quoted = r##"\!\"#\$%\&\'\(\)\*+\,-./:\;\<=\>\?@\[\\\]\^_\`\{\|\}~\ a"##;
    check_mask(&[all], &format!("printf: {quoted}"), "printf: ***");
    check_mask(&["#a b:~c"], r"printf: \#a\ b:\~c", r"printf: \***");
    // Several at once, and at the ends.
    check_mask(&["'it''s'"], r#"''"'"'it'"''"'s'"'""#, "'***");
    check_mask(&["'it''s'"], r#"''"'"'it'"'"''"'"'s'"'"''"#, "'***'");
    check_mask(&["{\n \"a\": \"\\n'\u{1b}\u{1}\"}"], r#"$'{\n "a": "\\n\'\E\001"}'"#, "$'***'");
}

#[test]
fn html_and_xml() {
    let secret = "pa$$w\"ord/ü's&1<>";
    for text in [
        "pa$$w&quot;ord/ü&#x27;s&amp;1&lt;&gt;",
        "pa$$w&quot;ord/ü&#39;s&amp;1&lt;&gt;",
        "pa$$w&quot;ord/ü&#039;s&amp;1&lt;&gt;",
        "pa$$w&quot;ord/ü&apos;s&amp;1&lt;&gt;",
        "pa$$w&#34;ord/ü&#39;s&amp;1&lt;&gt;",
        "pa$$w&quot;ord/ü's&amp;1&lt;&gt;",
        "pa$$w\"ord/ü's&amp;1&lt;&gt;",
    ] {
        check_mask(&[secret], text, "***");
    }
}

#[test]
fn json_as_python_and_php_write_it() {
    let secret = "pa$$w\"ord/ü's&1😀";
    let text = [
        r#""pa$$w\"ord/\u00fc's&1\ud83d\ude00""#,
        r#""pa$$w\"ord\/\u00fc's&1\ud83d\ude00""#,
        r#""pa$$w\"ord\/ü's&1😀""#,
    ];
    check_mask(&[secret], &text.join(" "), r#""***" "***" "***""#);
}

#[test]
fn json_as_go_and_rails_write_it() {
    let secret = "p&ss<w>\u{2028}d\u{1b}";
    let text = concat!(
        r"p\u0026ss\u003cw\u003e\u2028d\u001b p\u0026ss\u003Cw\u003E\u2028d\u001B ",
        "p&ss<w>\u{2028}d",
        r"\u001b"
    );
    check_mask(&[secret], text, "*** *** ***");
}

/// A secret of so many bytes, no two parts of which are equal.
fn long_secret(bytes: usize) -> String {
    let mut secret: String = (0..).map(|number| format!("{:x}", number * 7919 + 1_000_003)).take(bytes).collect();
    secret.truncate(bytes);
    secret
}

/// What a tool prints that begins a new line after so many digits.
fn wrapped(text: &str, width: usize, line_break: &str) -> String {
    let lines: Vec<&str> = text.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join(line_break) + line_break
}

/// As `base64` prints it.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut digits = String::new();
    for group in text.as_bytes().chunks(3) {
        let bits = group.iter().chain([&0; 2]).take(3).fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        digits.extend((0..=group.len()).map(|digit| char::from(DIGITS[bits >> (18 - 6 * digit) & 63])));
    }
    digits + ["", "", "==", "="][(text.len() % 3 + 1) % 4]
}

#[test]
fn every_line_of_a_long_secret_in_base64_and_hexadecimal() {
    for bytes in (100..=160).chain([1_700]) {
        let secret = long_secret(bytes);
        let masker = masker(&[&secret]);
        for line_break in ["\n", "\r\n"] {
            for printed in [secret.clone(), format!("{secret}\n")] {
                let hex: String = printed.bytes().map(|byte| format!("{byte:02x}")).collect();
                for (digits, width, line_bytes) in [
                    (base64(&printed), 64, 48),
                    (base64(&printed), 76, 57),
                    (hex.clone(), 60, 30),
                    (hex.to_uppercase(), 60, 30),
                ] {
                    let text = wrapped(&digits, width, line_break);
                    for masked in [
                        masker.mask(text.as_bytes()).into_owned(),
                        masked_in_pieces(&masker, text.as_bytes().chunks(7)),
                    ] {
                        let masked = String::from_utf8(masked).unwrap();
                        let rest = masked.replace("***", "").replace(line_break, "");
                        // Where the secret fills its last line, the line feed behind it is one of its own.
                        let is_right =
                            rest.is_empty() || bytes % line_bytes == 0 && matches!(&*rest, "Cg==" | "0a" | "0A");
                        assert!(is_right, "{bytes} bytes at {width}: {text} became {masked}");
                        assert!(masker.is_in_content(text.as_bytes()));
                    }
                }
            }
        }
    }
}

#[test]
fn the_last_line_of_a_wrapped_form_counts_behind_another_one_if_it_is_short() {
    let secret = long_secret(57 + 12);
    let digits = base64(&secret);
    let (line, rest) = digits.split_at(76);
    check_mask(&[&secret], rest, rest);
    check_mask(&[&secret], &format!("{line}\n{rest}\n{line}\r\n{rest}"), "***\n***");
    check_mask(&[&secret], &format!("12 {line}\n12 {rest}"), &format!("12 ***\n12 {rest}"));
    check_mask(&[&secret], &format!("a/b/c{line}{line}a {line}"), "a/b/c******a ***");
}

#[test]
fn a_line_of_a_wrapped_form_tells_that_a_file_holds_the_secret_but_for_the_marks_around_a_key() {
    let key =
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----", wrapped(&long_secret(300), 64, "\n"));
    let masker = masker(&[&key]);
    let text = wrapped(&base64(&key), 76, "\n");
    let (first, others) = text.split_once('\n').unwrap();
    assert!(!masker.is_in_content(first.as_bytes()), "as other keys begin");
    assert!(masker.is_in_content(others.as_bytes()));
    assert_eq!(masker.mask(first.as_bytes()).as_ref(), MASK);
}

#[test]
fn what_is_of_a_secret_in_longer_base64_wherever_its_lines_are_broken() {
    for bytes in [4, 15, 31, 40, 93, 150] {
        let secret = long_secret(bytes);
        let masker = masker(&[&secret]);
        for (before, behind) in (0..=115).flat_map(|before| ["", "\n", "@host"].map(|behind| (before, behind))) {
            let digits = base64(&format!("{}{secret}{behind}", "u".repeat(before)));
            let own = (before * 8).div_ceil(6)..(before + bytes) * 8 / 6;
            for (width, line_break) in [(64, "\n"), (64, "\r\n"), (76, "\n"), (76, "\r\n")] {
                let text = wrapped(&digits, width, line_break);
                for masked in [
                    masker.mask(text.as_bytes()).into_owned(),
                    masked_in_pieces(&masker, text.as_bytes().chunks(7)),
                    masked_in_pieces(&masker, text.as_bytes().chunks(width + 1)),
                ] {
                    let masked = String::from_utf8(masked).unwrap();
                    let rest = masked.replace("***", "").replace(line_break, "");
                    let rest_behind = rest.strip_prefix(&digits[..own.start]);
                    // The padding of a secret that ends the text is masked where the line begins with it.
                    let is_right = rest_behind.is_some_and(|behind| digits[own.end..].ends_with(behind));
                    assert!(is_right, "{bytes} bytes behind {before} at {width}: {text} became {masked}");
                }
                assert!(masker.is_in_content(text.as_bytes()), "{bytes} bytes behind {before} at {width}");
            }
        }
    }
}

#[test]
fn a_short_part_of_a_secret_counts_only_beside_another_line_of_it() {
    let secret = long_secret(93);
    let text = wrapped(&base64(&format!("{}:{secret}", "u".repeat(52))), 76, "\n");
    let [one, two, three] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    // 4 bytes of the secret end the first line: behind 53 bytes their first digit is in part the colon's.
    check_mask(&[&secret], &text, &format!("{}***\n***E=\n", &one[..71]));
    check_mask(&[&secret], &format!("1 {one}\n2 {two}\n3 {three}"), &format!("1 {one}\n2 ***\n3 ***E="));
}

#[test]
fn the_end_of_a_line_is_not_held_back_for_a_short_part_of_a_secret() {
    let masker = masker(&[&long_secret(93)]);
    for last in 'a'..='z' {
        let mut given = Vec::new();
        masker
            .stream()
            .unwrap()
            .push(format!("it is {last}\n").as_bytes(), &mut |bytes| given.extend_from_slice(bytes));
        assert!(given.ends_with(b"\n"), "{last}");
    }
}

#[test]
fn a_short_key_in_longer_base64_is_found_whole_and_not_by_the_marks_around_it() {
    let around =
        |key: &str| format!("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEI{key}\n-----END PRIVATE KEY-----");
    let secret = long_secret(86);
    let masker = masker(&[&around(&secret[..43])]);
    for before in 0..=60 {
        let text = |key: &str| wrapped(&base64(&format!("{}{}", "u".repeat(before), around(key))), 76, "\n");
        assert!(masker.is_in_content(text(&secret[..43]).as_bytes()), "behind {before}");
        assert!(!masker.is_in_content(text(&secret[43..]).as_bytes()), "another, behind {before}");
    }
}

#[test]
fn the_longest_secrets_can_be_masked_two_at_a_time() {
    let lines = |from: usize| wrapped(&base64(&long_secret(48_500))[from..], 64, "\n");
    let secrets = [lines(0), lines(2)].map(|secret| secret[..64 << 10].to_owned());
    assert!(Masker::new(&secrets).is_ok());
}

#[test]
fn the_longest_secret_can_be_masked_also_if_every_form_changes_it() {
    let marks: String = ('!'..='~').filter(|character| !character.is_ascii_alphanumeric()).chain(['ü']).collect();
    let secret = marks.repeat((64 << 10) / marks.len());
    assert!(Masker::new([&secret]).is_ok());
}

#[test]
fn each_line_of_a_secret_with_several() {
    check_mask(
        &["-----BEGIN-----\nabcdefgh\n}\n"],
        "abcdefgh } -----BEGIN-----\r\nabcdefgh\r\n",
        "*** } ***\r\n***\r\n",
    );
}

#[test]
fn a_line_that_stands_in_other_files_does_not_tell_that_a_file_holds_the_secret() {
    let key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nusers:\n-----END PRIVATE KEY-----";
    let masker = masker(&[key, "users: [7]"]);
    for (text, is_in) in [
        ("users:\n- name: ada", false),
        ("-----BEGIN PRIVATE KEY-----\nof another", false),
        ("key: MIIEvQIBADANBgkqhkiG9w0", true),
        ("users: [7]", true),
        (&format!("before {key} behind"), true),
        (&key.replace('\n', r"\n"), true),
    ] {
        assert_eq!(masker.is_in_content(text.as_bytes()), is_in, "{text}");
        assert!(matches!(masker.mask(text.as_bytes()), Cow::Owned(_)), "in logs every line counts: {text}");
    }
    assert!(!Masker::none().is_in_content(key.as_bytes()));
}

#[test]
fn a_very_short_secret_keeps_no_cache_from_being_saved() {
    let masker = masker(&["admin", "administrator-1"]);
    for (text, is_in_cached) in [
        ("isAdministrator = app.admin", false),
        (&base64("x:admin"), false),
        ("password administrator-1", true),
        (&base64("x:administrator-1"), true),
    ] {
        assert_eq!(masker.is_in_cached(text.as_bytes()), is_in_cached, "{text}");
        assert!(masker.is_in_content(text.as_bytes()), "a shell shows no such file: {text}");
    }
    assert!(!Masker::new(["4711"]).unwrap().is_in_cached(b"4711"));
    assert!(Masker::new(["hunter-2"]).unwrap().is_in_cached(b"of hunter-2"));
    assert!(!Masker::none().is_in_cached(b"hunter-2"));
}

#[test]
fn short_secrets_are_told_apart_and_let_through() {
    let short = "a".repeat(MASKED_BYTES_MIN - 1);
    assert!(is_too_short(short.as_bytes()) && is_too_short(b" 12\n"));
    assert!(!is_too_short(b"1234") && !is_too_short(b"") && !is_too_short(b" \n"));
    let masker = masker(&[&short, "", "\n"]);
    assert!(matches!(masker.mask(b"aaaaaaa"), Cow::Borrowed(_)));
    assert!(Masker::none().stream().is_none());
}

#[test]
fn too_much_to_mask_is_an_error() {
    let secret = vec![b'x'; PATTERN_BYTES_MAX];
    assert!(matches!(Masker::new([&secret]), Err(MaskerError { pattern_bytes }) if pattern_bytes > PATTERN_BYTES_MAX));
}

#[test]
fn secrets_are_not_shown_by_debug() {
    assert!(!format!("{:?}", masker(&["hunter2"])).contains("hunter2"));
}

#[test]
fn a_log_holds_no_secret_though_flushed_in_its_middle() {
    let pack = Pack::new();
    let mut log = pack.writer().open_stream(KEY, &masker(&["hunter2"]));
    log.write(Stream::Stdout, b"is hun", 1).unwrap();
    log.flush().unwrap();
    log.write(Stream::Stderr, b"hunt\n", 2).unwrap();
    log.write(Stream::Stdout, b"ter2\nhun", 3).unwrap();
    log.close();
    assert_eq!(pack.text(Writing::Over), "0 out@1 [is ]+\n1 err@2 [hunt]\n2 out@3 +[***]\n3 out@3 [hun]+\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn cutting_changes_nothing(
        secrets in vec("[ab]{4,7}", 1..4),
        pieces in vec("[ab]{0,9}", 0..12),
    ) {
        let masker = Masker::new(&secrets).unwrap();
        let whole = pieces.concat();
        let masked = masked_in_pieces(&masker, pieces.iter().map(String::as_bytes));
        prop_assert_eq!(&masked, &masker.mask(whole.as_bytes()).into_owned());
        for secret in &secrets {
            prop_assert!(!String::from_utf8(masked.clone()).unwrap().contains(secret.as_str()));
        }
    }

    #[test]
    fn no_form_survives(secret in "[ -~]{4,40}", before in "[a-c]{0,4}", cut in 1..9usize) {
        prop_assume!(secret.trim().len() >= 12 && !secret.contains('*'));
        let secret = secret.trim();
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        let url: String = secret.bytes().map(|byte| match byte {
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        }).collect();
        let text = format!("{before}{secret}\n{before}{hex}\n{before}{url}\n");
        let masked = masked_in_pieces(&masker(&[secret]), text.as_bytes().chunks(cut));
        prop_assert_eq!(String::from_utf8(masked).unwrap(), format!("{before}***\n").repeat(3));
    }
}
