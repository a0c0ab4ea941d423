/**
 * Texts for holding redaction against OpenClaw's: samples of its own patterns, pieces of what logs and requests look
 * like, and damage to both. The same seed gives the same texts.
 */
import { random } from "../../benches/measure.mjs";

const ALPHABET = [
  ..."abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
  ..." \t\r\n!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
  ..."\0\x7f\x85\xa0\xad\u0130\u0131\u017f\u1160\u1680\u180e\u200b\u2026\u2028\u2029\u202f\u205f\u212a\u3000\ufeff\uffa0é漢",
  "\u{1f600}",
  "\u{e0001}",
  "\u{1fffe}",
  "\ud800",
  "\udc00",
];

const NAMES = [
  ..."key token secret password passwd passphrase pass auth code session jwt sig signature cookie credential".split(
    " ",
  ),
  ..."api_key api-key apiKey apikey access_token accessToken refresh-token id_token client_secret clientSecret".split(
    " ",
  ),
  ..."app_secret private_key privateKey authorization proxy-authorization x-api-key X-Auth-Token x-goog-api-key".split(
    " ",
  ),
  ..."set-cookie card_number cardNumber cvc cvv security_code x-amz-signature aws_secret_access_key hook_token".split(
    " ",
  ),
  ..."SecretAccessKey awsSecretAccessKey X-OpenClaw-Token x-pomerium-jwt-assertion API_KEY GITHUB_TOKEN DB_PASSWD".split(
    " ",
  ),
  ..."db.password my_service.token a-password db-pass key_material secret_key raw_secret token_0123456789abcdef0".split(
    " ",
  ),
  ..."to%6ben %74oken p+ass pa\u200bssword %70%61ss pass%77ord a%zz= %E2%84%AAey tok%65n%5F0 %2574oken +token+ \ttoken".split(
    " ",
  ),
  ..."user name id q page author keyboard body form form_body form-body formbody Bearer Basic Bot Digest".split(
    " ",
  ),
];

const JOINS = [
  "=",
  "=",
  "=",
  ":",
  ": ",
  " = ",
  "= ",
  " =",
  '":"',
  '": "',
  '\\":\\"',
  "='",
  '="',
  "=`",
  " ",
  "==",
  "&",
  "%3D",
];
const ENDS = [
  "",
  "",
  "",
  " ",
  "\n",
  "\r\n",
  "&",
  '"',
  "'",
  "`",
  ",",
  ";",
  ")",
  "}",
  '"}',
  "\\n",
  "\\",
  "<",
  ">",
  "#",
  "…",
  "***",
];
const SCRAPS = [
  "https://user:hunter2hunter2@example.com/x?",
  "https://example.com/a/b?token=abc&x=1#key=2",
  "http://h:80/p",
  "postgres://app:s3cr3tpw@db:5432/x",
  "amqps://:p@h",
  "://a:b@",
  "://a:",
  "Authorization: Bearer abcdefghijklmnopqrstuvwxyz0123456789",
  "Authorization: Bearer 'abc",
  "Authorization: 'Bearer abcdef",
  'Authorization: Digest username="a", realm="b", response="c"',
  "authorization=AWS4-HMAC-SHA256 Credential=AKIA/20260101/eu/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=ab",
  'Proxy-Authorization: Hawk id="d", mac=\\"e\\"',
  "Authorization: Haw\u212a id=1",
  "\\nAuthorization: Foo bar, baz=qux\\r\\n\\tmore=1",
  "Authorization:\\n\\tNegotiate abc==",
  "Authorization: [REDACTED]",
  "Authorization: [REDACTED], x",
  '{"headers":{"Authorization":"Bearer xyzxyzxyzxyzxyz"}}',
  '"{\\"Authorization\\":\\"Token abcdef\\"}"',
  "body: token=abc",
  "form_body='pass=1'",
  "FORM body = x=y&password=z",
  "a=1&token=2&b=3",
  "(grant_type=client&client_secret=shh)",
  "%74oken=abc",
  "+token=abc",
  "x\u200btoken=1",
  "\u{e0001}key=1",
  "=a&b=c&d",
  "OPENAI_API_KEY=$OPENAI_API_KEY",
  `API_KEY=$\{API_KEY:-}`,
  `TOKEN: $\{OTHER}`,
  "SECRET=***",
  "password: '***'",
  "--token abc --api-key=def",
  "--token or --password",
  "--secret and --x",
  "--token or",
  "--password 'x y'",
  "-----BEGIN RSA PRIVATE KEY-----\nMIIB\nabc\n-----END RSA PRIVATE KEY-----",
  "-----BEGIN PRIVATE KEY-----abc-----END PRIVATE KEY-----",
  "-----begin private key-----\r\nx\r\n-----end private key-----",
  "-----BEGIN PRIVATE KEY-----",
  "-----END PRIVATE KEY-----",
  "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
  "https://h/wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
  "s3://AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY@b",
  "data:x;base64,AKIAIOSFODNN7EXAMPLE",
  ";base64,wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
  "da39a3ee5e6b4b0d3255bfef95601890afd80709",
  "123456789:AAabcdefghijklmnopqrstuvwxyz",
  "bot123456:ABCDEFGHIJKLMNOPQRSTUVWX",
  "discord: abcdefghijklmnopqrstuvwx.abcdef.abcdefghijklmnopqrstuvwxyz0",
  "sk-abcdefghijklmnop",
  "ghp_0123456789abcdef",
  "The quick brown fox jumps over the lazy dog.",
  "2026-11-21T12:00:00.000Z INFO gateway ready in 12 ms",
  '{"level":"info","message":"done","tokens":12}',
];

/** Draws from one seed. */
export class Texts {
  #next;

  constructor(seed) {
    this.#next = random(seed);
  }

  below(bound) {
    return Math.floor(this.#next() * bound);
  }

  pick(list) {
    return list[this.below(list.length)];
  }

  letters(length, alphabet = ALPHABET) {
    let text = "";
    for (let index = 0; index < length; index++) text += this.pick(alphabet);
    return text;
  }

  /** A text that the source matches or nearly does; groups, classes, quantifiers and references are followed. */
  sample(raw) {
    const literal = raw.match(/^\/(.+)\/g$/);
    const source = literal ? literal[1] : raw;
    const sampled = new Sampler(source, this).run();
    if (literal || this.below(3) > 0) return sampled;
    return this.below(2) ? sampled.toUpperCase() : sampled.toLowerCase();
  }

  value() {
    switch (this.below(6)) {
      case 0:
        return this.letters(this.below(6));
      case 1:
        return this.letters(15 + this.below(8), [..."abcXYZ019_-"]);
      case 2:
        return this.letters(40, [..."abcdefXYZ0123456789/+="]);
      case 3:
        return `${this.pick(['"', "'", "`", ""])}${this.letters(this.below(24))}${this.pick(['"', "'", "`", "", "',", '")'])}`;
      case 4:
        return this.pick(["***", "$TOKEN", `$\{TOKEN}`, "a&b=c", "[REDACTED]", "x\ud83d", "…"]);
      default:
        return this.letters(4 + this.below(30), [..."abcdefghijkl0123456789"]);
    }
  }

  assignment() {
    const quote = this.pick(["", "", "", '"', "'", "--"]);
    return `${quote}${this.pick(NAMES)}${quote === "--" ? "" : quote}${this.pick(JOINS)}${this.value()}${this.pick(ENDS)}`;
  }

  damaged(text) {
    const at = this.below(text.length + 1);
    const end = Math.min(text.length, at + this.below(4));
    switch (this.below(5)) {
      case 0:
        return text.slice(0, at) + text.slice(end);
      case 1:
        return text.slice(0, at) + this.pick(ALPHABET) + text.slice(at);
      case 2:
        return text.slice(0, at) + this.pick(ALPHABET) + text.slice(end);
      case 3:
        return text.slice(0, at) + text.slice(0, end) + text.slice(at);
      default:
        return text.slice(0, at) + this.pick(SCRAPS) + text.slice(at);
    }
  }

  /** A line or a few: samples, assignments and scraps with this and that between. */
  text(sources, pieces = 1 + this.below(5)) {
    let text = "";
    for (let piece = 0; piece < pieces; piece++) {
      const part = [
        () => this.sample(this.pick(sources)),
        () => this.sample(this.pick(sources)),
        () => this.assignment(),
        () => this.assignment(),
        () => this.pick(SCRAPS),
        () => this.letters(this.below(8)),
      ][this.below(6)]();
      text += part + this.pick([" ", " ", "\n", "&", ",", "", "", ": ", "=", this.pick(ALPHABET)]);
    }
    for (let times = this.below(3); times > 0; times--) text = this.damaged(text);
    return text;
  }

  /** What surrounds secrets in long texts. */
  prose(length) {
    let text = "";
    while (text.length < length) {
      text += this.pick([
        "turn",
        "finished",
        "with",
        "results",
        "from",
        "the",
        "model",
        "in",
        "42 ms",
        "ok",
        "(a, b)",
      ]);
      text += this.pick([" ", " ", " ", ", ", ".\n", "\n"]);
    }
    return text.slice(0, length);
  }
}

class Sampler {
  constructor(source, texts) {
    this.source = source;
    this.texts = texts;
    this.at = 0;
    this.groups = [];
  }

  run() {
    return this.alternatives()();
  }

  alternatives() {
    const branches = [this.sequence()];
    while (this.source[this.at] === "|") {
      this.at++;
      branches.push(this.sequence());
    }
    return () => this.texts.pick(branches)();
  }

  sequence() {
    const parts = [];
    while (this.at < this.source.length && !"|)".includes(this.source[this.at]))
      parts.push(this.quantified());
    return () => parts.map((part) => part()).join("");
  }

  quantified() {
    const atom = this.atom();
    const quantifier = /^(?:[*+?]|\{(\d+)(,?)(\d*)\})\??/.exec(this.source.slice(this.at));
    if (!quantifier) return atom;
    this.at += quantifier[0].length;
    const [sign] = quantifier[0];
    const least = sign === "{" ? Number(quantifier[1]) : sign === "+" ? 1 : 0;
    const most =
      sign === "{" && quantifier[3]
        ? Number(quantifier[3])
        : sign === "?"
          ? 1
          : sign === "{" && !quantifier[2]
            ? least
            : least + 4;
    return () => {
      // Now and then one too few or too many.
      let times = least + this.texts.below(Math.min(most - least, 6) + 1);
      if (this.texts.below(12) === 0) times = this.texts.below(2) ? Math.max(0, least - 1) : most + 1;
      return Array.from({ length: times }, () => atom()).join("");
    };
  }

  atom() {
    const { source } = this;
    const char = source[this.at++];
    if (char === "^" || char === "$") return () => "";
    if (char === ".") return () => this.texts.pick(ALPHABET);
    if (char === "[") {
      let end = this.at;
      while (source[end] !== "]") end += source[end] === "\\" ? 2 : 1;
      const set = this.set(source.slice(this.at - 1, end + 1));
      this.at = end + 1;
      return () => this.texts.pick(set);
    }
    if (char === "(") {
      const kind = /^\?(?:<?[=!]|:)/.exec(source.slice(this.at))?.[0];
      this.at += kind?.length ?? 0;
      const number = kind ? 0 : this.groups.push("");
      const inner = this.alternatives();
      this.at++;
      if (kind && kind !== "?:") return () => "";
      return () => {
        const text = inner();
        if (number) this.groups[number - 1] = text;
        return text;
      };
    }
    if (char !== "\\") return () => char;
    const escaped = source[this.at++];
    if (escaped === "b") return () => "";
    if (/[1-9]/.test(escaped)) return () => this.groups[Number(escaped) - 1];
    if (/[dsS]/.test(escaped)) {
      const set = this.set(`\\${escaped}`);
      return () => this.texts.pick(set);
    }
    return () => ({ n: "\n", r: "\r", t: "\t" })[escaped] ?? escaped;
  }

  set(source) {
    const pattern = new RegExp(`^${source}$`);
    const all = ALPHABET.filter((char) => pattern.test(char));
    // Mostly what a key is made of.
    const plain = all.filter((char) => /[A-Za-z0-9 ]/.test(char));
    return plain.length > 0 && this.texts.below(4) > 0 ? plain : all;
  }
}
