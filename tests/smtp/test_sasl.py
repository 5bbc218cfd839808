"""SASL mechanisms: the examples of their RFCs, and hostile answers."""

from __future__ import annotations

import hashlib
import hmac

import pytest
import scramp
from hypothesis import given, settings
from hypothesis import strategies as st

from forkd.smtp import replies, sasl
from forkd.smtp.sasl import Bearer, Challenge, Failed, NeedVerifier, Password, Proven, ScramVerifier


def verifier(password: str, salt: bytes, iterations: int = 4096) -> ScramVerifier:
    """What a server keeps of a password, written from RFC 5802 3 alone."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return ScramVerifier(salt, iterations, stored, hmac.digest(salted, b"Server Key", "sha256"))


class TestPlain:
    """RFC 4616."""

    @pytest.mark.parametrize(
        ("message", "step"),
        [
            (b"\0tim\0tanstaaftanstaaf", Password("tim", "tanstaaftanstaaf")),
            (b"Ursel\0Kurt\0xipj3plmq", Password("Kurt", "xipj3plmq", "Ursel")),
            ("\0jörg\0pässwörd".encode(), Password("jörg", "pässwörd")),
            ("\0jo\u0308rg\0pa\u0308ss".encode(), Password("jörg", "pa\u0308ss")),
            (b"\0a\0 ", Password("a", " ")),
        ],
    )
    def test_the_examples(self, message: bytes, step: sasl.Step) -> None:
        """RFC 4616 4; names prepared, passwords as sent."""
        assert sasl.start("PLAIN").step(message) == step

    @pytest.mark.parametrize(
        "message",
        [
            b"",
            b"\0",
            b"\0\0",
            b"\0a\0",
            b"\0\0b",
            b"a\0b",
            b"\0a\0b\0",
            b"\0a\0b\0c",
            b"\0\xff\0b",
            b"\0a\0\xff",
            b"\0\x07\0b",
            b"\xff\0a\0b",
            b"\0" + b"a" * 256 + b"\0b",
            b"a" * 256 + b"\0a\0b",
            "\0\u00ad\0b".encode(),
            "\0\ue000\0b".encode(),
            "\0\u0627a\0b".encode(),
        ],
    )
    def test_what_is_malformed_fails(self, message: bytes) -> None:
        """Empty or overlong names, characters SASLprep forbids (RFC 4616 2, RFC 4013)."""
        assert isinstance(sasl.start("PLAIN").step(message), Failed)

    def test_it_begins_with_nothing(self) -> None:
        """AUTH PLAIN alone is answered by an empty challenge (RFC 4954 4)."""
        assert sasl.start("PLAIN").first() == b""


class TestLogin:
    """Two questions."""

    def test_questions_and_answers(self) -> None:
        """Username, password."""
        exchange = sasl.start("LOGIN")
        assert exchange.first() == b"Username:"
        assert exchange.step(b"tim") == Challenge(b"Password:")
        assert exchange.step(b"secret") == Password("tim", "secret")

    @pytest.mark.parametrize(
        ("user", "password"), [(b"", b"x"), (b"x", b""), (b"x", b"a\0b"), (b"\xff", b"x")]
    )
    def test_what_is_malformed_fails(self, user: bytes, password: bytes) -> None:
        """After the password, so that nobody learns which of both it was."""
        exchange = sasl.start("LOGIN")
        assert exchange.step(user) == Challenge(b"Password:")
        assert isinstance(exchange.step(password), Failed)


class TestScram:
    """RFC 5802, RFC 7677."""

    SALT = bytes.fromhex("5b6d99689d123 58eeca04b141236fa81".replace(" ", ""))
    FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"

    def begun(self, password: str = "pencil") -> sasl.Exchange:
        """The server's challenge was sent."""
        exchange = sasl.start("SCRAM-SHA-256", nonce=self.NONCE)
        assert exchange.step(self.FIRST) == NeedVerifier("user")
        assert exchange.verifier(verifier(password, self.SALT)) == Challenge(
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        )
        return exchange

    FINAL = (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )

    def test_the_example(self) -> None:
        """RFC 7677 3, octet by octet."""
        step = self.begun().step(self.FINAL)
        assert step == Proven("user", b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")

    @pytest.mark.parametrize(
        ("final", "why"),
        [
            (FINAL.replace(b"p=d", b"p=e"), "wrong password"),
            (FINAL.replace(b"k0,", b"k1,"), "malformed message"),
            (FINAL.replace(b"biws", b"eSws"), "malformed message"),
            (FINAL[:-4], "wrong password"),
            (FINAL[:-3], "malformed message"),
            (FINAL.replace(b"p=dHzb", b"p="), "wrong password"),
            (FINAL.partition(b",p=")[0], "malformed message"),
            (b"", "malformed message"),
            (b"\xff", "malformed message"),
            (b"p=", "malformed message"),
            (FINAL + b",p=AA==", "malformed message"),
        ],
    )
    def test_what_is_not_right_fails(self, final: bytes, why: str) -> None:
        """A wrong proof, another nonce, another binding, nonsense."""
        assert self.begun().step(final) == Failed(why)

    def test_a_wrong_password_fails(self) -> None:
        """The proof fits no other verifier."""
        assert self.begun("pencils").step(self.FINAL) == Failed("wrong password")

    @pytest.mark.parametrize(
        "first",
        [
            b"",
            b"n",
            b"n,,",
            b"n,,n=user",
            b"n,,r=abc",
            b"n,,n=,r=abc",
            b"n,,n=user,r=",
            b"n,,r=abc,n=user",
            b"n,a=other,n=user,r=abc",
            b"y",
            b"p=tls-unique,,n=user,r=abc",
            b"p=tls-exporter,,n=user,r=abc",
            b"x,,n=user,r=abc",
            b"n,,m=ext,n=user,r=abc",
            b"n,,n=us=er,r=abc",
            b"n,,n=user,r=a\x00b",
            b"n,,n=user,r=\xc3\xa9",
            b"n,,n=\xff,r=abc",
            b"n,,n=\x07,r=abc",
            b"n,,n=" + b"u" * 256 + b",r=abc",
            b"n,,n=user,r=" + b"x" * 4096,
        ],
    )
    def test_a_bad_beginning_fails(self, first: bytes) -> None:
        """Before anybody is asked for a verifier."""
        assert sasl.start("SCRAM-SHA-256").step(first) == Failed("malformed message")
        assert sasl.scram_user(first) == ""

    def test_names_are_unescaped_and_prepared(self) -> None:
        """=2C and =3D (RFC 5802 5.1), SASLprep."""
        assert sasl.start("SCRAM-SHA-256").step("n,,n=a=2Cb=3Djo\u0308,r=abc".encode()) == NeedVerifier(
            "a,b=jö"
        )
        assert sasl.scram_user(b"n,,n=a=2Cb,r=abc") == "a,b"

    def test_a_client_that_could_bind_the_channel_is_served(self) -> None:
        """`y`: it thinks that we cannot, and we cannot (RFC 5802 6)."""
        assert sasl.start("SCRAM-SHA-256").step(b"y,,n=user,r=abc") == NeedVerifier("user")

    def test_each_exchange_has_a_nonce_of_its_own(self) -> None:
        """Else a proof could be sent again (RFC 5802 9)."""
        challenges = set()
        for _ in range(3):
            exchange = sasl.start("SCRAM-SHA-256")
            exchange.step(self.FIRST)
            challenge = exchange.verifier(verifier("pencil", self.SALT))
            assert isinstance(challenge, Challenge)
            challenges.add(challenge.data)
        assert len(challenges) == 3

    def test_a_real_client_gets_in_and_sees_our_proof(self) -> None:
        """The other side of the library, with a password that SASLprep changes."""
        client = scramp.ScramClient(["SCRAM-SHA-256"], "jörg", "pa\u00adss")
        exchange = sasl.start("SCRAM-SHA-256")
        assert exchange.step(client.get_client_first().encode()) == NeedVerifier("jörg")
        challenge = exchange.verifier(verifier("pass", self.SALT, 5000))
        assert isinstance(challenge, Challenge)
        client.set_server_first(challenge.data.decode())
        proven = exchange.step(client.get_client_final().encode())
        assert isinstance(proven, Proven)
        client.set_server_final(proven.final.decode())

    def test_the_order_is_kept(self) -> None:
        """A second first message, a verifier nobody asked for, a weak one: failed, not raised."""
        exchange = sasl.start("SCRAM-SHA-256")
        assert isinstance(exchange.verifier(verifier("x", self.SALT)), Failed)
        exchange.step(self.FIRST)
        assert isinstance(exchange.step(self.FIRST), Failed)
        assert isinstance(exchange.verifier(ScramVerifier(b"short", 1, b"", b"")), Failed)
        assert isinstance(sasl.start("PLAIN").verifier(verifier("x", self.SALT)), Failed)

    def test_the_longest_challenge_fits_into_a_line(self) -> None:
        """Our answer repeats the client's nonce (RFC 4954 4: 12,288 octets)."""
        exchange = sasl.start("SCRAM-SHA-256")
        exchange.step(b"n,,n=u,r=" + b"x" * 4080)
        challenge = exchange.verifier(verifier("x", self.SALT))
        assert isinstance(challenge, Challenge)
        assert replies.challenge(challenge.data).encode().count(b"\r\n") == 1


TOKEN = b"vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="


class TestOAuthBearer:
    """RFC 7628."""

    @pytest.mark.parametrize(
        ("message", "step"),
        [
            (
                b"n,a=user@example.com,\x01host=server.example.com\x01port=587\x01auth=Bearer %s\x01\x01"
                % TOKEN,
                Bearer("user@example.com", TOKEN.decode()),
            ),
            (b"n,,\x01auth=bearer a.b-c_d~e+/=\x01\x01", Bearer("", "a.b-c_d~e+/=")),
            (b"n,a=a=2Cb=3Dc,\x01auth=Bearer t\x01\x01", Bearer("a,b=c", "t")),
        ],
    )
    def test_the_examples(self, message: bytes, step: sasl.Step) -> None:
        """RFC 7628 4.1; the scheme has no case (RFC 7235 2.1)."""
        assert sasl.start("OAUTHBEARER").step(message) == step

    @pytest.mark.parametrize(
        "message",
        [
            b"",
            b"\x01",
            b"n,,\x01\x01",
            b"n,,\x01auth=Bearer t\x01",
            b"n,,\x01auth=Bearer t",
            b"n,,auth=Bearer t\x01\x01",
            b"n,,\x01auth=Basic dGVzdA==\x01\x01",
            b"n,,\x01auth=Bearer \x01\x01",
            b"n,,\x01auth=Bearer a b\x01\x01",
            b"n,,\x01auth=Bearer a\x01auth=Bearer b\x01\x01",
            b"p=tls-unique,,\x01auth=Bearer t\x01\x01",
            b"n,a=b=2Xc,\x01auth=Bearer t\x01\x01",
            b"n,a=\xff,\x01auth=Bearer t\x01\x01",
            b"n,a=" + b"u" * 256 + b",\x01auth=Bearer t\x01\x01",
        ],
    )
    def test_what_is_malformed_fails(self, message: bytes) -> None:
        """RFC 7628 3.1."""
        assert isinstance(sasl.start("OAUTHBEARER").step(message), Failed)

    def test_a_denied_client_reads_why_and_answers(self) -> None:
        """An error in JSON, the client's ^A, then 535 (RFC 7628 3.2.2, 3.2.3)."""
        exchange = sasl.start("OAUTHBEARER")
        exchange.step(b"n,,\x01auth=Bearer t\x01\x01")
        assert exchange.denied() == Challenge(b'{"status":"invalid_token"}')
        assert isinstance(exchange.step(b"\x01"), Failed)
        assert isinstance(sasl.start("PLAIN").denied(), Failed)


@settings(max_examples=300, deadline=None)
@given(
    mechanism=st.sampled_from(sorted(sasl.MECHANISMS)),
    messages=st.lists(
        st.binary(max_size=60)
        | st.text(alphabet="ny,=ap\0\x01rcn2CD3é\u0627abcBearer ", max_size=40).map(str.encode)
        | st.sampled_from([b"\0a\0b", b"n,,n=a,r=b", b"n,,\x01auth=Bearer t\x01\x01"]),
        max_size=4,
    ),
)
def test_no_answer_raises(mechanism: str, messages: list[bytes]) -> None:
    """Any octets, in any order, whoever asked for what."""
    exchange = sasl.start(mechanism)
    for message in messages:
        step = exchange.step(message)
        if isinstance(step, NeedVerifier):
            assert step.user
            exchange.verifier(verifier("x", bytes(16)))
        assert isinstance(step, sasl.Step)
        if isinstance(step, Password | Bearer):
            assert exchange.denied()


@given(st.binary(max_size=30))
def test_a_failure_says_nothing_of_what_was_sent(message: bytes) -> None:
    """`why` is for the log: one of a few words of ours."""
    for mechanism in sasl.MECHANISMS:
        step = sasl.start(mechanism).step(message)
        if isinstance(step, Failed):
            assert step.why in ("malformed message", "malformed name or password")


def test_secrets_are_in_no_repr() -> None:
    """Whoever logs a step by mistake logs no secret."""
    for value in (Password("u", "hunter2"), Bearer("u", "hunter2"), verifier("hunter2", b"hunter2hunter2")):
        assert "hunter" not in repr(value)


def test_an_unknown_mechanism_is_the_callers_mistake() -> None:
    """The engine has refused it before (504)."""
    with pytest.raises(KeyError):
        sasl.start("CRAM-MD5")
