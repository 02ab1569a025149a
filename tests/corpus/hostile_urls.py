"""URLs that must be refused, each with the trick it plays, and honest ones beside them.

`python -m tests.corpus.hostile_urls` writes them as JSON lines for `check-url --jsonl`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tests.corpus import hostile_addresses
from tests.corpus.url_case import PUBLIC, PUBLIC_6, Case


def _authority() -> Iterator[Case]:
    inner, outer = "127.0.0.1", "example.com"
    for trick, authority in {
        "user name": f"{outer}@{inner}",
        "user name and password": f"{outer}:443@{inner}",
        "user name of a public host": f"someone@{outer}",
        "empty user name": f"@{outer}",
        "empty password": f"someone:@{outer}",
        "two at signs": f"a@{inner}@{outer}",
        "encoded at sign": f"{inner}%40{outer}",
        "at sign behind a backslash": f"{inner}\\@{outer}",
        "backslash before the host": f"\\{inner}",
        "backslash after the host": f"{outer}\\.{inner}",
        "port and at sign behind a backslash": f"{inner}:6666\\@1.1.1.1",
        "encoded slash": f"{inner}%2f.{outer}",
        "encoded line end": f"{outer}%0d%0aHost:%20{inner}",
        "encoded zero": f"{inner}%00.{outer}",
        "encoded host": "%65xample.com",
        "lone percent sign": f"{outer}%",
        "no host": "",
        "port without a host": ":443",
        "a dot": ".",
        "two dots": "..",
        "leading dot": f".{outer}",
        "empty label": "example..com",
        "two final dots": f"{outer}..",
        "leading hyphen": f"-{outer}",
        "final hyphen": "example-.com",
        "label of 64 letters": f"{'a' * 64}.com",
        "name of 254 characters": f"{'a.' * 125}abcd",
        "asterisk": f"*.{outer}",
        "comma": f"{outer},{inner}",
        "semicolon": f"{outer};{inner}",
        "plus": f"{outer}+{inner}",
        "ampersand": f"{outer}&{inner}",
        "single quote": f"{outer}'",
        "dollar": "$HOST.example.com",
        "round brackets": f"{outer}({inner})",
        "brackets around a name": f"[{outer}]",
        "brackets after a name": f"{outer}[::1]",
        "bracket that stays open": "[::1",
        "bracket that was not opened": "::1]",
        "two addresses in brackets": "[::1][::1]",
        "brackets in brackets": "[[::1]]",
        "empty brackets": "[]",
        "text after brackets": "[2606:4700::1111]a",
        "name after brackets": "[2606:4700::1111].example.com",
        "IPv6 without brackets": "2606:4700::1111",
        "IPvFuture": "[v1.fe80::a]",
        "IPvFuture of IPv4": f"[v4.{inner}]",
        "zone id": "[fe80::1%25eth0]",
        "zone id, not encoded": "[fe80::1%eth0]",
        "zone id on a public address": "[2606:4700::1111%25lo]",
        "nine groups": "[1:2:3:4:5:6:7:8:9]",
        "two double colons": "[2606::1::1]",
        "three colons": "[:::1]",
        "five digits": "[2606:4700::11111]",
        "octal end of IPv6": "[::ffff:0177.0.0.1]",
        "prefix length": "[2606:4700::]/32",
        "prefix length inside": "[2606:4700::/32]",
    }.items():
        verdict = "allow" if trick == "prefix length" else "block"
        yield Case(trick, f"https://{authority}/cat.png", verdict)


def _ports() -> Iterator[Case]:
    for port in (
        *("0", "1", "22", "25", "53", "80", "444", "3306", "5432", "6379", "8080", "8443", "9200", "11211"),
        *("65535", "65536", "65979", "4294967739", "-1", "+443", "0443", "00443", "443.0", "4_43", "0x1bb"),
        *("443a", "https", "", "443:443", "\uff14\uff14\uff13", "\u0664\u0664\u0663", "44\u00b3", " 443"),
    ):
        yield Case(f"port {port!r}", f"https://example.com:{port}/", "block")
        yield Case(f"port {port!r} of an address", f"https://[2606:4700::1111]:{port}/", "block")


def _schemes() -> Iterator[Case]:
    for scheme in (
        *(
            "http",
            "HTTP",
            "ftp",
            "file",
            "gopher",
            "dict",
            "ldap",
            "ldaps",
            "tftp",
            "jar",
            "netdoc",
            "ws",
            "wss",
        ),
        *("data", "javascript", "blob", "view-source", "phar", "smb", "ssh", "git", "svn", "unix", "httpss"),
        *(
            "https+unix",
            "url",
            "\u017fhttps",
            "http\u017f",
            "\uff48ttps",
            "htt\u00adps",
            "0https",
            "https\u200b",
        ),
    ):
        yield Case(f"scheme {scheme!r}", f"{scheme}://example.com/", "block")
    for trick, url in {
        "no scheme": "example.com/cat.png",
        "no scheme, two slashes": "//example.com/cat.png",
        "a path": "/etc/passwd",
        "nothing": "",
        "a scheme alone": "https",
        "a scheme and a colon": "https:",
        "no slashes": "https:example.com",
        "one slash": "https:/example.com",
        "three slashes": "https:///example.com",
        "four slashes": "https:////example.com",
        "slash and backslash": "https:/\\example.com",
        "two backslashes": "https:\\\\example.com",
        "scheme in a scheme": "https:https://example.com",
        "scheme as a host": "https://https://example.com",
        "url prefix": "url:https://example.com",
        "host in the query": "https://?host=127.0.0.1",
        "host in the fragment": "https://#@127.0.0.1/",
        "data URL": "data:image/png;base64,iVBORw0KGgo=",
        "file of this machine": "file:///etc/passwd",
        "local file with a host": "file://localhost/etc/passwd",
        "quotes around": "'https://example.com/'",
        "angle brackets around": "<https://example.com/>",
    }.items():
        yield Case(trick, url, "block")


# Refused wherever they stand: readers strip, repair or refuse them, each in a way of its own.
_NOWHERE = (*range(0x21), *range(0x7F, 0xA1), 0x2028, 0x2029, 0xFEFF, 0xD800, 0xDFFF, *map(ord, '\\<>"^`{|}'))
# No part of a host, but behind it they are letters like others: macOS puts U+202F into the names of screenshots.
_BEHIND_THE_HOST_ONLY = (0x1680, 0x2003, 0x200B, 0x202F, 0x205F, 0x3000)


def _characters() -> Iterator[Case]:
    for code in (*_NOWHERE, *_BEHIND_THE_HOST_ONLY):
        mark = chr(code)
        yield Case(f"U+{code:04X} in front", f"{mark}https://example.com/", "block")
        yield Case(f"U+{code:04X} in the scheme", f"htt{mark}ps://example.com/", "block")
        yield Case(f"U+{code:04X} in the host", f"https://exam{mark}ple.com/", "block")
        yield Case(f"U+{code:04X} before the host", f"https://{mark}example.com/", "block")
        yield Case(f"U+{code:04X} after the host", f"https://example.com{mark}/", "block")
        behind = "block" if code in _NOWHERE else "allow"
        yield Case(f"U+{code:04X} in the path", f"https://example.com/a{mark}b", behind)
        yield Case(f"U+{code:04X} in the query", f"https://example.com/?a{mark}b", behind)
        yield Case(f"U+{code:04X} in the fragment", f"https://example.com/#a{mark}b", behind)
        yield Case(f"U+{code:04X} at the end", f"https://example.com/{mark}", behind)
    for trick, url in {
        "a header behind a line end": "https://example.com/ HTTP/1.1\r\nHost: 127.0.0.1",
        "two URLs": "https://example.com/ https://127.0.0.1/",
        "2,049 characters": "https://example.com/".ljust(2_049, "a"),
        "a query of 10,000 characters": f"https://example.com/?{'a' * 10_000}",
        "2,049 characters, mostly fragment": "https://example.com/#".ljust(2_049, "a"),
        "a million dots": f"https://{'.' * 1_000_000}/",
    }.items():
        yield Case(trick, url, "block")


def _unicode_hosts() -> Iterator[Case]:
    for trick, host in {
        "full-width letters": "\uff45\uff58\uff41\uff4d\uff50\uff4c\uff45.com",
        "circled letters": "\u24d4\u24e7\u24d0\u24dc\u24df\u24db\u24d4.com",
        "Kelvin sign": "\u212aelvin.com",
        "long s": "\u017fecure.com",
        "ligature": "\ufb01le.com",
        "trade mark": "\u2122.com",
        "one half": "\u00bd.com",
        "account of": "\u2100.com",
        "soft hyphen": "exam\u00adple.com",
        "zero-width space": "exam\u200bple.com",
        "zero-width joiner": "exam\u200dple.com",
        "zero-width non-joiner": "exam\u200cple.com",
        "word joiner": "exam\u2060ple.com",
        "left-to-right mark": "exam\u200eple.com",
        "right-to-left override": "exam\u202eple.com",
        "variation selector": "exam\ufe0fple.com",
        "combining grapheme joiner": "exam\u034fple.com",
        "ideographic dot": "example\u3002com",
        "full-width dot": "example\uff0ecom",
        "half-width dot": "example\uff61com",
        "one dot leader": "example\u2024com",
        "full-width slash": "example.com\uff0f.evil.com",
        "full-width at sign": "127.0.0.1\uff20example.com",
        "full-width colon": "example.com\uff1a443",
        "full-width question mark": "127.0.0.1\uff1f.example.com",
        "full-width number sign": "127.0.0.1\uff03.example.com",
        "full-width percent sign": "127.0.0.1\uff0500.example.com",
        "full-width bracket": "\uff3b::1\uff3d",
        "division slash": "example.com\u2215.evil.com",
        "fraction slash": "example.com\u2044.evil.com",
        "decomposed letter": "u\u0308ber.de",
        "Persian digits": "\u06f1\u06f2\u06f7.\u06f0.\u06f0.\u06f1",
        "Devanagari digits": "\u0967\u0968\u096d.\u0966.\u0966.\u0967",
        "Thai digits": "\u0e51\u0e52\u0e57.\u0e50.\u0e50.\u0e51",
        "Chinese digits": "\u4e00\u4e8c\u4e03.\u3007.\u3007.\u4e00",
        "one Bengali digit at the end": "127.0.0.\u09e7",
        "A-label of a digit at the end": "127.0.0.xn--e4b",
        "Turkish capital I": "\u0130stanbul.com",
        "surrogate": "exam\udc00ple.com",
        "unassigned": "exam\u0378ple.com",
        "private use": "exam\ue000ple.com",
        "noncharacter": "exam\uffffple.com",
        "tag": "exam\U000e0041ple.com",
        "emoji": "i\u2764.ws",
        "mixed directions": "a\u05d0b.com",
        "combining mark in front": "\u0301a.com",
        "localhost in circles": "\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3",
        "label of 60 umlauts": "\u00fc" * 60 + ".de",
        "A-label of nothing": "xn--.com",
        "A-label that is no Punycode": "xn--99999999.com",
        "A-label of a control": "xn--a.com",
        "A-label of full-width letters": "xn--mi7c.com",
        "A-label of ASCII": "xn--example-.com",
        "A-label of a circled letter": "xn--vuh.com",
        "A-label with a hyphen at its end": "xn--bcher-kva-.com",
        "international one label": "b\u00fccher",
    }.items():
        yield Case(trick, f"https://{host}/", "block")


def _names() -> Iterator[Case]:
    for host in (
        *("localhost", "LOCALHOST", "LocalHost.", "localhost.localdomain", "a.localhost", "www.a.localhost."),
        *("localhost6", "localhost6.localdomain6", "ip6-localhost", "ip6-loopback", "broadcasthost"),
        *("intranet", "metadata", "instance-data", "kubernetes", "host", "redis", "a", "com", "com.", "_"),
        *("metadata.google.internal", "METADATA.GOOGLE.INTERNAL.", "instance-data.ec2.internal"),
        *(
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "host.docker.internal",
        ),
        *(
            "printer.local",
            "nas.lan",
            "router.home",
            "hub.home.arpa",
            "mail.corp",
            "wiki.intranet",
            "db.private",
        ),
        *("a.localdomain", "a.domain", "a.workgroup", "a.mail", "a.test", "a.invalid", "a.alt"),
        *(
            "facebookcorewwwi.onion",
            "a.i2p",
            "a.bit",
            "1.0.0.127.in-addr.arpa",
            "x.ip6.arpa",
            "vault.service.consul",
        ),
        *("example.123", "example.0x7f", "example.0x", "example.0XFF.", "a.b.c.4", "1.2.3.08", "1.2.3.256"),
        *(
            "1.2.3.4.5",
            "256.256.256.256",
            "1.2.3",
            "1",
            "0",
            "00.0.0.0",
            "0x0",
            "127.1",
            "0177.1",
            "1.2.3.4.",
        ),
    ):
        verdict = "allow" if host == "1.2.3.4." else "block"
        yield Case(f"the name {host}", f"https://{host}/", verdict)


def _answers() -> Iterator[Case]:
    private = {
        "127.0.0.1.nip.io": ("127.0.0.1",),
        "10-0-0-1.sslip.io": ("10.0.0.1",),
        "localtest.me": ("127.0.0.1", "::1"),
        "metadata.goog": ("169.254.169.254",),
        "mapped.example.com": ("::ffff:10.0.0.1",),
        "nat64.example.com": ("64:ff9b::a9fe:a9fe",),
        "one-bad-at-the-end.example.com": (PUBLIC, PUBLIC_6, "10.0.0.1"),
        "one-bad-in-front.example.com": ("10.0.0.1", PUBLIC, PUBLIC_6),
        "one-bad-of-the-other-kind.example.com": (PUBLIC, "fe80::1"),
        "bad-behind-many.example.com": (*[PUBLIC] * 20, "127.0.0.1"),
        "zone.example.com": ("fe80::1%eth0",),
        "public-zone.example.com": ("2606:4700::1111%eth0",),
        "mapped-zone.example.com": ("::ffff:1.1.1.1%1",),
        "nothing.example.com": (),
        "text.example.com": ("garbage",),
        "empty.example.com": ("",),
        "name.example.com": ("localhost",),
        "number.example.com": ("2130706433",),
        "octal.example.com": ("010.0.0.1",),
        "blank.example.com": (f" {PUBLIC}",),
        "range.example.com": (f"{PUBLIC}/32",),
        "port.example.com": (f"{PUBLIC}:443",),
        "brackets.example.com": ("[2606:4700::1111]",),
        "good-and-garbage.example.com": (PUBLIC, "garbage"),
        "digits.example.com": ("\u0661.1.1.1",),
    }
    for host, answers in private.items():
        yield Case(f"the answers for {host}", f"https://{host}/", "block", answers)


# Paths and queries are the far side's business, whatever they hold.
_HONEST_TAILS = (
    *(
        "",
        "/",
        "/a",
        "/a?b",
        "?x=1",
        "#top",
        "/a#b",
        "/?",
        "/%",
        "/%zz",
        "/%00",
        "/%2e%2e/",
        "/a/../b",
        "//a//b",
    ),
    *("/@b", "/a:b", "/~a", "/$(x)", "/?u=https://127.0.0.1/", "/?a=1&b[]=2;c='x'", "/\u00e9t\u00e9.png"),
    *(
        "/Screenshot\u202fAM.png",
        "/\u65e5\u672c\u3000\u8a9e.png",
        "/a%7Cb?c=%7B%22d%22%3A%20%5B1%5D%7D&e=%5E%60%3C%3E%5C",
    ),
    *("/a/:@!$&'()*+,;=~._-/b;v=1?k=v&:@!$'()*+,;=/?~._-[]", "/o/a%2Fb.png?alt=media&token=1-2_3~4.5"),
    *(
        "/k?sv=2024-11-04&sr=b&sig=a%2Bb%2Fc%3D&se=2026-11-21T00%3A00%3A00Z",
        "/t_a,w_1:2|3/b".replace("|", "%7C"),
    ),
    *(
        "/k?Expires=1&Signature=aB-cD~eF_&Key-Pair-Id=K1&Policy=e30_",
        "/w_100,h_100/https://a.example.com/b.png",
    ),
    *("/\u732b.png?q=\U0001f408", "/k?X-Amz-Signature=ab%2Fcd&X-Amz-Date=20261121T000000Z"),
)
_HONEST_HOSTS = (
    *("example.com", "EXAMPLE.COM", "Example.Com.", "example.com:443", "example.net", "example.org", "a.co"),
    "pictures.example",
    # Registries that allow more than IDNA 2008 does: what is registered is the A-label.
    *("xn--ls8h.la", "xn--i-7iq.ws", "XN--LS8H.LA"),
    # A final sigma, a joiner that Persian needs, and letters whose plain form are capitals.
    *(
        "\u03a3\u038a\u0393\u039c\u0391\u03a3.gr",
        "\u03c3\u03af\u03b3\u03bc\u03b1\u03c2.gr",
        "\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.com",
        "\u13e3\u13b3\u13a9.com",
        "paral\u00b7lel.cat",
        "\u0967\u0968.com",
    ),
    *("b\u00fccher.de", "B\u00dcCHER.de", "xn--bcher-kva.de", "XN--BCHER-KVA.de", "stra\u00dfe.de"),
    *(
        "\u4f8b\u3048.jp",
        "\u043f\u0440\u0438\u043c\u0435\u0440.\u0440\u0444",
        "www.\u0645\u062b\u0627\u0644.com",
    ),
    *("\u05d3\u05d5\u05d2\u05de\u05d4.co.il", "a_b.s3.example.com", "_dmarc.example.com", "1.example.com"),
    *("r3---sn-4g5e6nzz.googlevideo.com", "127.0.0.1.example.com", "0x7f.example.com", "3com.com", "a-b.com"),
    *(
        "localhost.example.com",
        "internal.example.com",
        "local.dev",
        "www.test.com",
        "home.blog",
        "x--y.example.com",
    ),
    *("a.b.c.d.e.f.example.museum", "bucket.s3.eu-central-1.amazonaws.com"),
    f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 57}.com",
)


def _honest() -> Iterator[Case]:
    urls = [f"https://images.example.com{tail}" for tail in _HONEST_TAILS]
    urls += [f"https://{host}/cat.png" for host in _HONEST_HOSTS]
    for url in (*urls, "HTTPS://example.com/", "https://example.com/?".ljust(2_048, "q")):
        yield Case(f"honest: {url[:60]}", url, "allow")
    for answers in ((PUBLIC,), (PUBLIC_6,), (PUBLIC, PUBLIC_6), (PUBLIC,) * 20, (f"::ffff:{PUBLIC}",)):
        yield Case(f"honest answers {len(answers)}", "https://images.example.com/", "allow", answers)


def cases() -> list[Case]:
    """All of them, always in the same order."""
    parts = (_authority, _ports, _schemes, _characters, _unicode_hosts, _names, _answers, _honest)
    return [*hostile_addresses.cases(), *(case for part in parts for case in part())]


if __name__ == "__main__":
    sys.stdout.writelines(f"{case.line()}\n" for case in cases())
