#!/usr/bin/env python3
"""The messages of split authentication, made without the crate: from the tables in `src/split` and
the protocol alone. Prints `tests/split_messages.txt`, which `tests/split_messages.rs` compares the
crate with. Needs the package `cryptography`.
"""

import struct
import zlib
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

try:
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
except ImportError:
    TripleDES = algorithms.TripleDES

TRANSPORT = b"transport key 07"
STORAGE = b"storage key of 1"
FORMAT = 1


def show(name, value):
    print(f"{name} {value.hex()}")


# The card's ciphers.


def algorithm(key):
    return algorithms.AES(key) if len(key) == 16 else TripleDES(key)


def cbc(key, iv, data, encrypt=True):
    cipher = Cipher(algorithm(key), modes.CBC(iv))
    worker = cipher.encryptor() if encrypt else cipher.decryptor()
    return worker.update(data) + worker.finalize()


def left(data):
    return data[1:] + data[:1]


def handshake(key, rnd_a, rnd_b):
    """E(RndB), token and last answer of AuthenticateAES and AuthenticateISO."""
    zero = bytes(16 if len(key) == 16 else 8)
    size = len(zero)
    cryptogram = cbc(key, zero, rnd_b)
    token = cbc(key, cryptogram[-size:], rnd_a + left(rnd_b))
    proof = cbc(key, token[-size:], left(rnd_a))
    return cryptogram, token, proof


def legacy_handshake(key, rnd_a, rnd_b):
    """Of the authentication 0A: the terminal deciphers in both directions."""
    triple = key * 3
    ecb = lambda block: cbc(triple, bytes(8), block, encrypt=False)
    cryptogram = cbc(triple, bytes(8), rnd_b)
    first = ecb(rnd_a)
    second = ecb(bytes(a ^ b for a, b in zip(first, left(rnd_b))))
    return cryptogram, first + second, cbc(triple, bytes(8), left(rnd_a))


# The messages.


def cmac(key, *parts):
    mac = CMAC(algorithms.AES(key))
    mac.update(b"".join(parts))
    return mac.finalize()


def derive(key, label, context):
    fixed = label + b"\x00" + context + struct.pack(">I", 128)
    return cmac(key, struct.pack(">I", 1), fixed)


def derive_from_both(salt, secret, label, context):
    return derive(cmac(salt, secret), label, context)


def short(data):
    return bytes([len(data)]) + data


def challenge_body(mode, scheme, key_type, key_no, aid, uid, terminal, transport, fresh, link, purpose, cryptogram):
    body = bytes([FORMAT, 1, mode, scheme, key_type, key_no]) + aid
    body += b"\x00" if uid is None else b"\x01" + uid
    body += short(terminal) + transport + fresh + bytes(link) + short(purpose) + short(cryptogram)
    return body


class Tap:
    def __init__(self, body):
        self.body = body
        self.mac = cmac(derive(TRANSPORT, b"desfire split 1 terminal", b""), body)
        self.id = self.mac[:8]

    def challenge(self):
        return self.body + self.mac

    def seal(self, side, kind, body):
        message = bytes([FORMAT, kind]) + self.id + body
        return message + cmac(derive(TRANSPORT, b"desfire split 1 " + side, self.body), message)

    def card_locked(self, token, session_key, proof):
        kek = derive_from_both(TRANSPORT, proof, b"desfire split 1 card-locked", self.body)
        return self.seal(b"holder", 2, short(token) + keywrap.aes_key_wrap(kek, session_key))

    def token(self, token):
        return self.seal(b"holder", 3, short(token))

    def proof(self, proof):
        return self.seal(b"terminal", 4, short(proof))

    def release(self, session_key, proof):
        kek = derive(TRANSPORT, b"desfire split 1 proven", self.body + proof)
        return self.seal(b"holder", 5, keywrap.aes_key_wrap(kek, session_key))

    def pending(self, deadline, proof, session_key):
        plain = bytes([FORMAT, 0x41]) + struct.pack("<Q", deadline) + proof.ljust(16, b"\x00")
        plain += session_key + self.challenge()
        return keywrap.aes_key_wrap_with_padding(STORAGE, plain)


def counter(value):
    return b"\x00" + struct.pack("<Q", value)


def preshared(version):
    return bytes([0, version])


AID = bytes([0x16, 0xDE, 0x00])


def a_tap(mode, scheme, key_type, cryptogram):
    return Tap(
        challenge_body(
            mode, scheme, key_type, 0, AID, None, b"till 7", preshared(1), counter(7),
            (1, 60), b"one coffee", cryptogram,
        )
    )


def nonce(start, size):
    return bytes((start + 5 * i) % 256 for i in range(size))


# Secure messaging after AuthenticateAES and AuthenticateISO: the chain of CMACs.


class Messaging:
    def __init__(self, key):
        self.key = key
        self.size = 16 if len(key) == 16 else 8
        self.iv = bytes(self.size)

    def mac(self, data):
        """CMAC of SP 800-38B, but that the chain goes on from where it stands."""
        k1 = double(cbc(self.key, bytes(self.size), bytes(self.size)))
        whole = len(data) > 0 and len(data) % self.size == 0
        if not whole:
            data += b"\x80"
            data += bytes(-len(data) % self.size)
        last = xor(data[-self.size :], k1 if whole else double(k1))
        self.iv = cbc(self.key, self.iv, data[: -self.size] + last)[-self.size :]
        return self.iv[:8]

    def encipher_reply(self, data):
        """Data and CRC32 over data and status, zeros behind."""
        plain = data + struct.pack("<I", zlib.crc32(data + b"\x00") ^ 0xFFFFFFFF)
        plain += bytes(-len(plain) % self.size)
        ciphertext = cbc(self.key, self.iv, plain)
        self.iv = ciphertext[-self.size :]
        return ciphertext


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def double(block):
    bits = 8 * len(block)
    number = int.from_bytes(block, "big") << 1
    if block[0] & 0x80:
        number ^= 0x87 if bits == 128 else 0x1B
    return (number & ((1 << bits) - 1)).to_bytes(len(block), "big")


def next_reply(session_key):
    """To the first command of a session, GetKeyVersion of key 0: version 5A."""
    card = Messaging(session_key)
    card.mac(bytes([0x64, 0]))
    return b"\x5a" + card.mac(b"\x5a\x00")


PENDING, COMMIT, UNKNOWN, CHECKED, PROVED = 2, 4, 8, 16, 32


def script(tap, token, proof, session_key):
    """GetKeyVersion 0, known; WriteData to a backup file, MACed; CommitTransaction; GetValue, enciphered, unknown."""
    card = Messaging(session_key)
    tally_key = derive_from_both(TRANSPORT, proof, b"desfire split 1 script", tap.body)
    state, count = bytes(16), 0
    entries, kept, replies = b"", b"", b""

    def known(flags, code, payload, data):
        nonlocal state, count, entries, kept, replies
        before = card.iv
        reply = data + card.mac(data + b"\x00")
        count += 1
        state = cmac(tally_key, bytes([count]), state, reply)
        start = bytes([flags, code]) + struct.pack("<H", len(payload)) + payload
        entries += start + struct.pack("<H", len(reply)) + state[:8]
        # The record keeps the parameters of unknown replies only.
        kept += bytes([flags, code, 0, 0]) + struct.pack("<H", len(reply)) + reply + struct.pack("<H", len(data))
        kept += before if data else b""
        replies += b"\x00" + struct.pack("<H", len(reply)) + reply

    # A request without a MAC on the wire is still in the chain.
    card.mac(bytes([0x64, 0]))
    known(PROVED, 0x64, b"\x00", b"\x00")
    data = bytes(range(0x20, 0x25))
    header = bytes([1]) + (3).to_bytes(3, "little") + len(data).to_bytes(3, "little")
    tag = card.mac(bytes([0x3D]) + header + data)
    known(PENDING | CHECKED | PROVED, 0x3D, header + data + tag, b"")
    card.mac(bytes([0xC7]))
    known(COMMIT | PROVED, 0xC7, b"", b"")
    tail = card.iv
    # How long the reply may be: 4 bytes and, whatever the key, room for 32 of CRC and padding.
    start = bytes([UNKNOWN | PROVED, 0x6C]) + struct.pack("<H", 1) + b"\x02"
    card.mac(bytes([0x6C, 2]))
    reply = card.encipher_reply((1000).to_bytes(4, "little"))
    entries += start + struct.pack("<H", 4 + 32)
    kept += start + bytes(4)
    replies += b"\x00" + struct.pack("<H", len(reply)) + reply

    message = tap.seal(b"holder", 6, short(token) + bytes([4]) + entries)
    record = bytes([FORMAT, 0x40]) + short(tap.challenge()) + short(proof) + session_key.ljust(24, b"\x00")
    record += bytes([4]) + tail + kept
    receipt = tap.seal(b"terminal", 7, short(proof) + replies)
    return message, keywrap.aes_key_wrap_with_padding(STORAGE, record), receipt


def main():
    print("# Made by split_messages.py. A name and its bytes in a line; names that begin alike belong together.")

    # Every field of a challenge in each of its forms.
    bare = dict(
        mode=4, scheme=0xAA, key_type=4, key_no=0, aid=bytes(3), uid=None, terminal=b"t",
        transport=preshared(0), fresh=counter(0), link=(0, 0), purpose=b"", cryptogram=b"",
    )
    show("challenge/least", Tap(challenge_body(**bare)).challenge())
    full = dict(
        mode=2, scheme=0x1A, key_type=3, key_no=13, aid=bytes([0xF1, 0xF2, 0xF3]), uid=bytes(range(0x81, 0x88)),
        terminal=bytes(range(0x40, 0x50)),
        transport=b"\x01" + bytes(range(0xA0, 0xA8)) + struct.pack("<I", 0x01020304),
        fresh=b"\x01" + bytes(range(0x60, 0x70)), link=(1, 60), purpose=bytes(range(0xC0, 0x100)),
        cryptogram=bytes(range(0x10, 0x20)),
    )
    show("challenge/most", Tap(challenge_body(**full)).challenge())
    some = dict(
        bare, mode=1, scheme=0x0A, key_type=2, aid=AID, fresh=counter(0x1122334455667788), transport=preshared(0xEE),
        cryptogram=bytes(range(8)), link=(0, 17),
    )
    show("challenge/legacy", Tap(challenge_body(**some)).challenge())
    show("challenge/des", Tap(challenge_body(**dict(some, key_type=1, mode=1, scheme=0x1A))).challenge())
    show("challenge/script", Tap(challenge_body(**dict(full, mode=3, fresh=counter(1)))).challenge())

    rnd_a, rnd_b = nonce(0x11, 16), nonce(0xC4, 16)

    def session(name, key, rnd_a, cryptogram):
        show(f"{name}/key", key)
        show(f"{name}/rnd-a", rnd_a)
        show(f"{name}/cryptogram", cryptogram)

    # AuthenticateAES, all modes that release something.
    key = nonce(0x77, 16)
    session_key = (rnd_a[:4] + rnd_b[:4] + rnd_a[12:] + rnd_b[12:]).ljust(24, b"\x00")
    cryptogram, token, proof = handshake(key, rnd_a, rnd_b)
    session("aes", key, rnd_a, cryptogram)
    tap = a_tap(2, 0xAA, 4, cryptogram)
    show("aes/card-locked/challenge", tap.challenge())
    show("aes/card-locked/answer", tap.card_locked(token, session_key, proof))
    show("aes/card-locked/proof", proof)
    show("aes/card-locked/next", next_reply(session_key[:16]))
    tap = a_tap(1, 0xAA, 4, cryptogram)
    show("aes/proven/challenge", tap.challenge())
    show("aes/proven/token", tap.token(token))
    show("aes/proven/proof", tap.proof(proof))
    show("aes/proven/release", tap.release(session_key, proof))
    show("aes/proven/pending", tap.pending(0x0102030405060708, proof, session_key))
    tap = a_tap(3, 0xAA, 4, cryptogram)
    message, record, receipt = script(tap, token, proof, session_key[:16])
    show("aes/script/challenge", tap.challenge())
    show("aes/script/script", message)
    show("aes/script/record", record)
    show("aes/script/receipt", receipt)

    # A remote dialogue: number, whether it is the end, frame.
    tap = a_tap(4, 0xAA, 4, b"")
    show("remote/challenge", tap.challenge())
    frame, answer = bytes([0x90, 0x60, 0, 0, 0]), bytes([0x04, 0x01, 0x91, 0xAF])
    for number in (0, 1):
        head = struct.pack("<H", number)
        show(f"remote/command-{number}", tap.seal(b"holder", 8, head + b"\x00" + frame))
        show(f"remote/reply-{number}", tap.seal(b"terminal", 9, head + b"\x00" + answer))
    show("remote/goodbye", tap.seal(b"holder", 8, struct.pack("<H", 2) + b"\x01"))
    # Of a card that does not answer.
    show("remote/no-reply", tap.seal(b"terminal", 9, struct.pack("<H", 0) + b"\x01"))

    # AuthenticateISO with three keys.
    key = nonce(0x30, 24)
    session_key = b"".join(rnd[i : i + 4] for i in (0, 6, 12) for rnd in (rnd_a, rnd_b))
    cryptogram, token, proof = handshake(key, rnd_a, rnd_b)
    session("3k3des", key, rnd_a, cryptogram)
    tap = a_tap(2, 0x1A, 3, cryptogram)
    show("3k3des/card-locked/challenge", tap.challenge())
    show("3k3des/card-locked/answer", tap.card_locked(token, session_key, proof))
    show("3k3des/card-locked/proof", proof)
    show("3k3des/card-locked/next", next_reply(session_key))

    # The legacy authentication with single DES: nonces of 8 bytes.
    key = nonce(0x52, 8)
    rnd_a, rnd_b = rnd_a[:8], rnd_b[:8]
    session_key = ((rnd_a[:4] + rnd_b[:4]) * 2).ljust(24, b"\x00")
    cryptogram, token, proof = legacy_handshake(key, rnd_a, rnd_b)
    session("des", key, rnd_a, cryptogram)
    tap = a_tap(1, 0x0A, 1, cryptogram)
    show("des/proven/challenge", tap.challenge())
    show("des/proven/token", tap.token(token))
    show("des/proven/proof", tap.proof(proof))
    show("des/proven/release", tap.release(session_key, proof))
    show("des/proven/pending", tap.pending(1, proof, session_key))


main()
