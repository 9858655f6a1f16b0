"""Captions cut into words as the Penn Treebank does, so that BLEU and CIDEr can be compared.

Published caption scores are computed on the tokens of Stanford CoreNLP 3.4.1 (Manning et al. 2014),
a Java program that lower-cases, splits clitics and drops punctuation marks. Another tokenizer moves
CIDEr by several points. These rules were found by asking that program about made-up text; the
token at a place is the longest that any rule finds, the earlier rule in a tie.

What the program does and a reader may not expect: brackets stay, as the tokens `-lrb-` and
`-rrb-`; a single letter keeps its dot ("plan b."), unless a capitalised word begins the next
sentence; a fraction or telephone number may hold a no-break space.

Differs from the program: a caption is read alone. The program reads a file with one a line, and
looks across the end of a line after "no." (a number?) and "b." (a sentence?), or for what follows
a smiley. A line break inside a caption is a space.
"""

# ruff: noqa: RUF001 - quotation marks and dashes that look alike are what this file is about

from __future__ import annotations

import re

DROPPED = frozenset("'' ' `` ` . ? ! , : - -- ... ;".split())
"""Punctuation marks that count as no word; pycocoevalcap lists brackets too, but in upper case,
where no token ever is."""

_NUMERALS = "²³¹¼½¾\u2070-\u209f\u2150-\u218f"
_LETTER = rf"[^\W\d_{_NUMERALS}]"
_SIGN = rf"[^\W_{_NUMERALS}]"
"""Letter or digit."""
_JOINED = rf"{_SIGN}+(?:[-_\u2010\u2011]{_SIGN}+)*"
_APOSTROPHE = "['’]"
_CLITIC = rf"{_APOSTROPHE}(?:s|m|d|re|ve|ll)(?![a-z])"
_IN_ADDRESS = r"[^\s\"<>|()]"
_ENDS_ADDRESS = r"[^\s\"<>|.!?(){},-]"
_HOST = r"[^\s\"`'<>|.!?(){},-_$]"
"""The program's own set: its ",-_" is a range, which excludes digits and capitals as well."""

_ABBREVIATIONS = """
    adj adm adv al ala alex apr ariz assn assoc asst atty aug ave bhd bldg blvd brig bros calif capt
    cf cie cmdr co col colo conn corp cos cpl ct dak dec dept det dr drs elec ens esq est etc ext
    feb fla fri ft ga gen gov govs hon inc ind insp intl invt jan jos jr jul jun kan kans ky lieut
    lt ltd maj mar md messrs mfg mich minn mlle mme mo mon mont mr mrs ms msgr mt mtg natl neb nev
    nov oct okla penn pfc ph plc ppte ppty pres prof profs pte ptes pty ptys pvt rd rep reps rev rt
    sen sens sep sept seq sfc sgt spc sq sr st ste supt sys tel tenn thu thurs tue tues univ va vs
    vt wed wis wisc wm wyo
"""
_BEFORE_NUMBERS = "art ca fig figs no nos op pp prop"
"""Abbreviations only in front of a number, or of a comma, colon or semicolon."""
_BEGINNINGS = """
    A About According After An As At But Earlier He Her Here However If In It Last Many More Mr Ms
    Now Once One Other Our She Since So Some Such That The Their Then There These They This We What
    When While Yet You
"""
"""Capitalised words that begin a sentence, so that a letter and dot in front of them part."""


def _any(words: str) -> str:
    return "|".join(sorted(words.split(), key=len, reverse=True))


_RULES = (
    # clitics and what they cling to; the lookahead counts as part of the match
    r"[a-z]+(?=(n['’`]t))",
    r"n['’`]t",
    rf"{_JOINED}(?=({_CLITIC}))",
    _CLITIC,
    rf"can(?=(not)(?!{_SIGN}))|(?:gon|wan)(?=(na)(?!{_SIGN}))|got(?=(ta)(?!{_SIGN}))",
    rf"(?:gim|lem)(?=(me)(?!{_SIGN}))|'t(?=(is|was))",
    # words with an apostrophe that belongs to them
    rf"[dol]{_APOSTROPHE}{_LETTER}{_SIGN}+(?:-{_SIGN}+)*|[ldj]{_APOSTROPHE}(?={_LETTER}|\s|$)",
    rf"{_APOSTROPHE}(?:n{_APOSTROPHE}|n(?![\w.])|em|till?|cause|[2-9]0s|\d\d(?=\s|$))",
    rf"ol{_APOSTROPHE}|somethin{_APOSTROPHE}|dunkin{_APOSTROPHE}|y{_APOSTROPHE}(?={_LETTER})",
    rf"{_LETTER}+[aeiouy]{_APOSTROPHE}(?:[aeiou]|(?-i:[A-Z])){_LETTER}*",
    rf"(?-i:[A-HJ-XZn]){_APOSTROPHE}{_LETTER}{{2,}}",
    r"(?:c'mon|c'est|s'mores|li'l|nat'l|ev'ry|e'er|o'o|nor'easter|cont'd\.)",
    # addresses
    rf"https?://{_IN_ADDRESS}+{_ENDS_ADDRESS}",
    rf"(?-i:(?:{_HOST}+\.)+(?:com|net|org|edu))(?:/{_IN_ADDRESS}+{_ENDS_ADDRESS})?",
    rf"(?-i:[a-zA-Z0-9]){_IN_ADDRESS}*@(?:[^\s\"<>|().]+\.)*[^\s\"<>|().]+",
    rf"@(?-i:[a-zA-Z_][a-zA-Z_0-9]*)|\#{_LETTER}+",
    # abbreviations
    rf"(?:{_any(_ABBREVIATIONS)})\.|(?:{_any(_BEFORE_NUMBERS)})\.(?=\s?\d|[,;:])",
    rf"(?-i:[A-Za-z]\.(?!\s+(?:{_any(_BEGINNINGS)})(?![a-z])))",
    r"(?-i:[A-Za-z](?:\.[A-Za-z])+\.)|ph\.d\.",
    # words, numbers and what joins them
    rf"{_JOINED}",
    rf"{_LETTER}{_SIGN}*(?:\.{_LETTER}{_SIGN}*)+(?:-{_SIGN}+)*",
    rf"{_LETTER}+(?:[?!]{_LETTER}+)+",
    rf"{_SIGN}+\.(?:jpe?g|png|gif|bmp|txt|docx?|pdf|html?|mp[34g]|mov|avi|wav|zip|gz|py|xml)\b",
    r"(?-i:[a-zA-Z0-9]+(?:-[a-zA-Z]+){0,2}(?:/[a-zA-Z0-9]+(?:-[a-zA-Z]+){0,2}){1,2})",
    r"(?-i:[A-Z]+(?:(?:&amp;|[&+])[A-Z]+)+)|c\+\+|[cf]\#",
    r"(?:\d{1,4}[- \xa0])?\d{1,4}/\d{1,4}",
    r"(?:\(\d{2,3}\)[ \xa0]?|(?:\+\+?)?(?:\d{2,4}[- \xa0])?\d{2,4}[- \xa0])\d{3,4}[- \xa0]?\d{3,5}",
    r"[-+]?(?:\d+(?:[.:,]\d+)*|(?:[.:,]\d+)+)",
    rf"\d+(?:[.,]\d+)+{_SIGN}*(?:-{_SIGN}+)+",
    # signs
    r"(?-i:[A-Z]*\$)|&(?:amp|lt|gt|quot|apos|nbsp|mdash|\#\d+);",
    r"</?(?-i:[A-Za-z!?])[^<>]*>",
    rf"(?-i:[<>]?[:;=][-o*']?[()DPdpO\\{{@|\[\]](?!{_SIGN}))|\^_\^",
    r"[?!]{2,}|\*+|_+|\#+|@@+|>>|<<|-{5,}|-{2,4}|\.\.\.|''|[`‘’“”]{2}|-[lr][rsc]b-",
    r"\S",
)
_MATCHERS = tuple(re.compile(rule, re.IGNORECASE) for rule in _RULES)
_SPACE = re.compile(r"[\s\x00-\x1f\u200b\ufeff\U00010000-\U0010ffff]")
"""The program knows no sign beyond 16 bits: emojis part words and are dropped."""
_STRAIGHTENED = re.compile(rf"{_CLITIC}|n’t")
_PLAIN = re.compile(r"[a-z]+(?= |$)", re.IGNORECASE)
_PARTED = frozenset("cannot gonna gotta lemme gimme wanna".split())
_WRITTEN = {
    "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "€": "$", "£": "#", "¢": "cents",
    "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''", "&apos;": "'", "&nbsp;": "",
    "&mdash;": "--", "…": "...",
}  # fmt: skip
_QUOTES = {"`": "`", "‘": "`", "’": "'", "“": "``", "”": "''"}
"""Two in a row are one token, which only `DROPPED` decides about."""
_SILENT = frozenset('"₩‛“”‘’«»‹›–—―‐‑‒\u0096\u0097')
"""Quotation marks and dashes, which the program turns into marks that are dropped."""


def tokenize(text: str) -> list[str]:
    """The words of a caption, lower case, without punctuation marks.

    A token may hold a no-break space ("1 1/2"); `metrics.ngrams` splits it there, as the published
    scorers do.
    """
    text = _SPACE.sub(" ", re.sub("[\xad\ufe0f]", "", text))
    tokens = []
    place = 0
    while place < len(text):
        if text[place] == " ":
            place += 1
            continue
        length = _token_length(text, place)
        tokens.append(_written(text[place : place + length]))
        place += length
    return [token for token in tokens if token and token not in DROPPED]


def _token_length(text: str, place: int) -> int:
    plain = _PLAIN.match(text, place)
    if plain and plain[0].lower() not in _PARTED:
        return plain.end() - place
    longest, length = 0, 1
    for matcher in _MATCHERS:
        found = matcher.match(text, place)
        if found is None:
            continue
        weight = len(found[0]) + sum(len(ahead or "") for ahead in found.groups())
        if weight > longest:
            longest, length = weight, len(found[0])
    return length


def _written(token: str) -> str:
    """The spelling of a token in the output."""
    if token in _SILENT or (set(token) == {"-"} and len(token) < 5):
        return ""
    if token in _WRITTEN:
        return _WRITTEN[token]
    if len(token) == 2 and set(token) <= _QUOTES.keys():
        return "".join(_QUOTES[mark] for mark in token)
    token = token.lower().replace("(", "-lrb-").replace(")", "-rrb-").replace(" ", "\xa0")
    token = token.replace("&amp;", "&")
    return token.replace("’", "'") if _STRAIGHTENED.fullmatch(token) else token
