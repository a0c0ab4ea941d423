use proptest::prelude::*;

use super::super::patterns::Patterns;
use super::*;

#[rustfmt::skip]
const PIECES: &[&str] = &[
    "Authorization: Digest ", "Proxy-Authorization=Hawk ", "\"authorization\": \"AWS4-HMAC ", "\\n\\\"authorization\\\":x ",
    "authorization", ":", "a=", "b = ", "a==", "credential=", "signedheaders=", "a;b", "host;:c", "v", "/", ",", ",", ", ", " ", " ",
    "\t", "\n", "\r\n", "\n ", "\\n", "\\t", "\\\\r\\\\n\\t", ";", "\"", "'", "\\", "\\\"", "\\\\\\\"", "}", "]", "(", "é",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_header_is_read_as_if_it_were_the_first(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)) {
        let text: Vec<u16> = pieces.concat().encode_utf16().collect();
        let program = Patterns::get().unwrap().header();
        let all: Vec<usize> = (0..text.len()).collect();
        let mut expected = Vec::new();
        let mut matcher = Matcher::new(program, &text);
        let mut last = 0;
        for start in all.iter().copied() {
            if start < last {
                continue;
            }
            if let Some(end) = matcher.at(start) {
                last = end;
                expected.extend(Parameters::new(&text).ranges(program, &[start]));
            }
        }
        prop_assert_eq!(Parameters::new(&text).ranges(program, &all), expected);
    }
}
