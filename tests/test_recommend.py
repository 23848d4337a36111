"""Which image for one card and driver: measured before predicted, and why the others do not fit."""

from __future__ import annotations

from cuda_matrix.host_facts import HostFacts
from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.predict import host_facts
from cuda_matrix.recommend import Candidate, Recommendation, Trial, recommend
from cuda_matrix.reference import load_reference

REFERENCE = load_reference()


def candidate(torch: str, cuda: str) -> Candidate:
    return Candidate(f"torch{torch}-cu{cuda}", f"example.org/{torch}-{cuda}:1", ImageFacts(torch=torch, cuda=cuda))


OLD, MID, NEW = candidate("2.2.0", "11.8"), candidate("2.2.0", "12.1"), candidate("2.9.1", "13.0")
CANDIDATES = (OLD, MID, NEW)


def a800(driver: str) -> HostFacts:
    return host_facts("A800 80GB", driver, REFERENCE)


def answer(driver: str, *trials: Trial, candidates: tuple[Candidate, ...] = CANDIDATES) -> Recommendation:
    return recommend(candidates, trials, a800(driver), REFERENCE)


def trial(of: Candidate, driver: str, images_per_s: float | None = None, **values: object) -> Trial:
    return Trial(of.image, driver, values.pop("works", True), images_per_s=images_per_s, **values)  # type: ignore[arg-type]


def test_without_results_the_newest_that_is_predicted_to_work_comes_first() -> None:
    found = answer("580.65.06")
    assert [choice.image for choice in found.fits] == [NEW.image, MID.image, OLD.image]
    assert {choice.basis for choice in found.fits} == {"predicted"}
    assert found.unfit == ()


def test_what_does_not_fit_names_rule_and_driver_newest_first() -> None:
    found = answer("470.129.06")
    assert [choice.image for choice in found.fits] == [OLD.image]
    assert [(choice.image, choice.prediction.cause) for choice in found.unfit] == [
        (NEW.image, "driver-too-old"),
        (MID.image, "driver-too-old"),
    ]
    assert found.unfit[1].prediction.needs_driver == "525.60.13"


def test_measured_before_predicted_and_fast_before_slow() -> None:
    found = answer("580.65.06", trial(OLD, "580.65.06", 980.0), trial(MID, "580.65.06", 1_020.0))
    assert [(choice.image, choice.basis) for choice in found.fits] == [
        (MID.image, "measured"),
        (OLD.image, "measured"),
        (NEW.image, "predicted"),
    ]


def test_stable_before_fast_and_a_figure_before_none() -> None:
    found = answer(
        "580.65.06",
        trial(OLD, "580.65.06", 900.0),
        trial(MID, "580.65.06", 1_300.0, stable=False),
        trial(NEW, "580.65.06"),
    )
    assert [choice.image for choice in found.fits] == [OLD.image, MID.image, NEW.image]


def test_a_result_of_another_driver_counts_only_where_the_rules_say_the_same_of_both() -> None:
    same = answer("580.65.06", trial(MID, "560.35.03", 1_020.0))
    assert (same.fits[0].image, same.fits[0].basis) == (MID.image, "measured")
    assert same.fits[0].trial is not None
    assert same.fits[0].trial.driver == "560.35.03"
    other = answer("470.129.06", trial(MID, "560.35.03", 1_020.0))
    assert MID.image in [choice.image for choice in other.unfit]
    assert all(choice.basis == "predicted" for choice in other.unfit)


def test_what_was_measured_has_the_last_word() -> None:
    found = answer(
        "470.129.06",
        trial(OLD, "470.129.06", works=False, cause="native-crash"),
        trial(MID, "470.129.06", 700.0),
    )
    assert [choice.image for choice in found.fits] == [MID.image]
    assert [(c.image, c.basis) for c in found.unfit] == [(NEW.image, "predicted"), (OLD.image, "measured")]


def test_a_simulated_result_is_no_measurement_beside_a_real_one() -> None:
    pretended = trial(OLD, "580.65.06", 5_000.0, simulated=True)
    mixed = answer("580.65.06", pretended, trial(MID, "580.65.06", 1_020.0))
    assert [(c.image, c.basis) for c in mixed.fits] == [
        (MID.image, "measured"),
        (NEW.image, "predicted"),
        (OLD.image, "predicted"),
    ]
    alone = answer("580.65.06", pretended)
    assert (alone.fits[0].image, alone.fits[0].basis) == (OLD.image, "simulated")


def test_nothing_fits_and_the_driver_that_would_change_it() -> None:
    found = answer("470.129.06", candidates=(MID, NEW))
    assert found.fits == ()
    assert found.needs_driver == "525.60.13"


def test_an_image_of_which_nothing_is_known_is_neither() -> None:
    blank = Candidate("blank", "example.org/blank:1", ImageFacts())
    found = answer("580.65.06", candidates=(blank,))
    assert (found.fits, found.unfit) == ((), ())
    assert [choice.image for choice in found.unknown] == ["blank"]
    assert found.needs_driver is None
    works = recommend((blank,), (trial(blank, "580.65.06", 9.0),), a800("580.65.06"), REFERENCE)
    assert [choice.basis for choice in works.fits] == ["measured"]
