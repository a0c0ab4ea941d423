//! Slack's names of emoji, for those that people react with: <https://docs.slack.dev/reference/methods/reactions.add>.

/// The emoji, and Slack's name of it; of several, the first counts.
const NAMES: [(&str, &str); 56] = [
    ("👍", "+1"),
    ("👍", "thumbsup"),
    ("👎", "-1"),
    ("👎", "thumbsdown"),
    ("❤️", "heart"),
    ("🔥", "fire"),
    ("🎉", "tada"),
    ("👏", "clap"),
    ("😀", "grinning"),
    ("😄", "smile"),
    ("😁", "grin"),
    ("😂", "joy"),
    ("🤣", "rolling_on_the_floor_laughing"),
    ("🙂", "slightly_smiling_face"),
    ("😉", "wink"),
    ("😊", "blush"),
    ("😍", "heart_eyes"),
    ("🥰", "smiling_face_with_3_hearts"),
    ("😎", "sunglasses"),
    ("🤔", "thinking_face"),
    ("😢", "cry"),
    ("😭", "sob"),
    ("😱", "scream"),
    ("😡", "rage"),
    ("🤯", "exploding_head"),
    ("🥱", "yawning_face"),
    ("😴", "sleeping"),
    ("😅", "sweat_smile"),
    ("😬", "grimacing"),
    ("🙏", "pray"),
    ("👌", "ok_hand"),
    ("👋", "wave"),
    ("💪", "muscle"),
    ("🙌", "raised_hands"),
    ("🤝", "handshake"),
    ("👀", "eyes"),
    ("✅", "white_check_mark"),
    ("✔️", "heavy_check_mark"),
    ("❌", "x"),
    ("⚠️", "warning"),
    ("❓", "question"),
    ("❗", "exclamation"),
    ("🚀", "rocket"),
    ("💯", "100"),
    ("⏳", "hourglass_flowing_sand"),
    ("⌛", "hourglass"),
    ("🤖", "robot_face"),
    ("💡", "bulb"),
    ("🐛", "bug"),
    ("📝", "memo"),
    ("🔒", "lock"),
    ("⭐", "star"),
    ("✨", "sparkles"),
    ("☕", "coffee"),
    ("🎈", "balloon"),
    ("🔧", "wrench"),
];

/// The name of an emoji, or of what is a name already, with or without colons.
pub(super) fn name(emoji: &str) -> Option<String> {
    let bare = |text: &str| text.replace('\u{FE0F}', "");
    let wanted = bare(emoji);
    if let Some((_, name)) = NAMES.iter().find(|(known, _)| bare(known) == wanted) {
        return Some((*name).to_owned());
    }
    let name = emoji.strip_prefix(':').and_then(|name| name.strip_suffix(':')).unwrap_or(emoji);
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-+'".contains(c);
    // A skin tone goes behind two colons.
    let word = |part: &str| !part.is_empty() && part.chars().all(plain);
    name.split("::").all(word).then(|| name.to_owned())
}

/// The emoji of a name; a name that is not known stays as it is, with colons.
pub(super) fn emoji(name: &str) -> String {
    let base = name.split("::").next().unwrap_or(name);
    NAMES
        .iter()
        .find(|(_, known)| *known == base)
        .map_or_else(|| format!(":{name}:"), |(emoji, _)| (*emoji).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emoji_have_names_and_names_emoji() {
        assert_eq!(name("👍").as_deref(), Some("+1"));
        assert_eq!(name("❤").as_deref(), Some("heart"));
        assert_eq!(name(":party_parrot:").as_deref(), Some("party_parrot"));
        assert_eq!(name("wave::skin-tone-2").as_deref(), Some("wave::skin-tone-2"));
        assert_eq!(name("🦤"), None);
        assert_eq!(name(":"), None);
        assert_eq!(emoji("thumbsup"), "👍");
        assert_eq!(emoji("+1::skin-tone-3"), "👍");
        assert_eq!(emoji("party_parrot"), ":party_parrot:");
    }
}
