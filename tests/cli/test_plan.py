"""`sightline plan`: the verdict, the parts, and what is refused."""

from tests.cli.conftest import Run


def test_the_command_says_first_whether_it_fits(run: Run) -> None:
    options = ("park-siglip", "--batch", 64, "--dtype", "float32", "--device", "cpu", "--json")
    answer = run("plan", *options, "--memory", "64GB")
    document = answer.json
    assert answer.code == 0 and document["fits"] and document["model"] == "park-siglip"
    assert document["total"] == sum(document["parts"].values())
    assert [fit["kind"] for fit in document["largest"]] == ["none", "full", "lora", "locked"]
    assert all(fit["batch"] > 64 for fit in document["largest"])


def test_wrong_use_is_named(run: Run) -> None:
    assert "give the NAME of a model" in run("plan").err
    assert "are for --train" in run("plan", "park-siglip", "--accumulate", 2).err
    assert run("plan", "park-siglip", "--memory", "much").code == 2
