"""How long GitHub is waited for: every rule of its page on rate limits, and what PyGithub's own retries leave out."""

from __future__ import annotations

import pytest

from cuda_matrix.adapters.github_retry import Failed, Patience, Profile, is_limit, pause_s

NOW = 1_700_000_000.0


def paused(failed: Failed, profile: Profile = "repeatable", failures: int = 1, chance: float = 0.0) -> float | None:
    return pause_s(failed, profile, failures, Patience(), now_s=NOW, chance=chance)


SECONDARY = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."


@pytest.mark.parametrize(
    ("failed", "seconds"),
    [
        (Failed(429, {"retry-after": "7"}), 7),
        (Failed(403, {"retry-after": "7"}), 7),
        (Failed(429, {}), 60),
        (Failed(403, {}, SECONDARY), 60),
        (Failed(403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW) + 20)}), 21),
        (Failed(403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW) - 20)}), 1),
        (Failed(429, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}), 60),
        (Failed(429, {"retry-after": "-5"}), 60),
        (Failed(429, {"retry-after": "9" * 400}), 999_999_999),
        (Failed(403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9" * 400}), 60),
        (Failed(403, {"x-ratelimit-remaining": "12", "x-ratelimit-reset": str(int(NOW) + 20)}, SECONDARY), 60),
    ],
)
@pytest.mark.parametrize("profile", ["repeatable", "create"])
def test_rate_limits_are_waited_for_in_both_profiles(failed: Failed, seconds: float, profile: Profile) -> None:
    assert paused(failed, profile) == seconds


def test_secondary_limits_are_waited_for_ever_longer() -> None:
    assert [paused(Failed(429), failures=n) for n in (1, 2, 3)] == [60, 120, 240]


@pytest.mark.parametrize("failed", [Failed(), Failed(500), Failed(502), Failed(503), Failed(504)])
def test_what_may_pass_is_repeated_only_where_it_does_no_harm(failed: Failed) -> None:
    assert [paused(failed, failures=n, chance=1) for n in range(1, 7)] == [1, 2, 4, 8, 16, None]
    assert [paused(failed, failures=n, chance=0) for n in range(1, 7)] == [0.5, 1, 2, 4, 8, None]
    assert paused(failed, "create") is None


def test_a_create_that_was_never_sent_is_sent_again() -> None:
    assert paused(Failed(unsent=True), "create", chance=1) == 1


@pytest.mark.parametrize(
    "failed", [Failed(400), Failed(401), Failed(404), Failed(409), Failed(422), Failed(403, {}, "no")]
)
def test_a_refusal_stays_one(failed: Failed) -> None:
    assert paused(failed) is None
    assert not is_limit(failed)
