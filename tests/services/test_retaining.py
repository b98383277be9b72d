"""What a witness cosigned counts for pruning only as far as its signature verifies."""

import asyncio

from audit.cosignature import Cosigner, with_signatures
from audit.cosigned import cosigned_path, write_cosigned
from audit.keys import Keyring
from audit.reader import LogReader
from audit.record import now_us
from services.retaining import Retaining, cosigned_sizes
from services.settings import Settings
from tests.audit.pruneworld import living
from tests.audit.worlds import ORIGIN, make_keyring

WITNESS = Cosigner("example.org/w", b"w" * 32)
STRANGER = Cosigner("example.org/w", b"s" * 32)


def settings_of(home, **more):
    witnesses = f"http://127.0.0.1:1 {WITNESS.key}"
    return Settings(home=home, origin=ORIGIN, witnesses=witnesses, **more)


async def test_a_cosignature_counts_if_it_is_the_witnesss(tmp_path) -> None:
    ring = make_keyring(tmp_path / "keys")
    chosen = settings_of(tmp_path)
    async with living(tmp_path, ring) as log:
        await log.decide(7, at=0)
        await log.notary.checkpoint()
        note = LogReader(log.directory).checkpoint()
        text = note.partition("\n\n")[0] + "\n"
        assert cosigned_sizes(chosen, ring) == {"example.org/w": 0}
        for signer, size in ((STRANGER, 0), (WITNESS, 7)):
            line = signer.cosign(text, now_us() // 1_000_000).rstrip("\n")
            write_cosigned(log.directory, WITNESS.key, with_signatures(note, [line]))
            assert cosigned_sizes(chosen, ring) == {"example.org/w": size}
        cosigned_path(log.directory, WITNESS.key).write_bytes(b"\xff damaged")
        assert cosigned_sizes(chosen, ring) == {"example.org/w": 0}
    assert cosigned_sizes(Settings(home=tmp_path), Keyring.load(tmp_path / "keys")) == {}


async def test_it_runs_at_once_and_a_failure_does_not_end_it(tmp_path) -> None:
    ring = make_keyring(tmp_path / "keys")
    async with living(tmp_path, ring, "1h..2h") as log:
        await log.decide(300, at=0)
        await log.pruning.roll()
        await log.decide(1, at=3)
        log.hours = 5
        runs = asyncio.Event()
        real, log.pruning.keep_to_ceilings = log.pruning.keep_to_ceilings, None

        async def keep(within_us):
            if not runs.is_set():
                runs.set()
                raise OSError("injected")
            return await real(within_us)

        log.pruning.keep_to_ceilings = keep
        await log.notary.checkpoint()
        chosen = settings_of(tmp_path, retention="1h..2h", retention_interval_s=0.001)
        retaining = Retaining(log.pruning, chosen)
        async with asyncio.timeout(20):
            while LogReader(log.directory).first() == 0:  # noqa: ASYNC110  another task's doing
                await asyncio.sleep(0.01)
        await retaining.close()
        assert runs.is_set()
    idle = Retaining(log.pruning, settings_of(tmp_path))
    await idle.close()  # no retention is set: nothing was begun
