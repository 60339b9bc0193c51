"""Configuration: what is accepted, what it means, and everything that is wrong with it at once."""

import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dualtrack.config import (
    AzureAuth,
    Backend,
    BearerAuth,
    DatabricksAuth,
    Kind,
    NamingRule,
    NoAuth,
    Secret,
    Store,
    TokenAuth,
    duration_text,
    explain,
    from_urls,
    infer_kind,
    load,
    parse,
    parse_duration,
    parse_size,
    size_text,
)
from dualtrack.config_model import Model
from dualtrack.errors import ConfigError, Problem

EXAMPLES = Path(__file__).parents[2] / "config"
ENVIRON = {"PROD_TOKEN": "hunter2", "ARCHIVE_PASSWORD": "hunter2", "MAIN_TOKEN": "hunter2", "TOKEN": "hunter2"}
WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
GOOD = "primary: a\nregistry: a\nbackends:\n  a: {url: 'http://a:1'}\n  b: {url: 'http://b:1'}\n"


def problems(text: str, base_dir: Path = Path()) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as caught:
        parse(text, ENVIRON, base_dir)
    assert "hunter2" not in str(caught.value)
    return {problem.path: problem for problem in caught.value.problems}


def backend(keys: str) -> str:
    """A good file whose secondary has these keys as well."""
    return GOOD.replace("{url: 'http://b:1'}", f"{{url: 'http://b:1', {keys}}}")


def at(url: str) -> str:
    return GOOD.replace("http://b:1", url)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_examples_load(path: Path) -> None:
    config = load(path, ENVIRON)

    assert config.primary_backend is config.backends[config.primary]
    assert len(config.secondaries) == 1
    assert "hunter2" not in explain(config)


def test_the_full_example_shows_every_default() -> None:
    """Its active values are the defaults, and every key of every section is in it, if only as a comment."""
    full = load(EXAMPLES / "full.yaml", ENVIRON)
    plain = parse(GOOD, {}, Path.cwd())
    text = (EXAMPLES / "full.yaml").read_text()

    own = {"primary", "registry", "backends"}
    assert full.model_dump(exclude=own) == plain.model_dump(exclude=own)
    assert full.backends["mirror"].model_dump(exclude={"url"}) == plain.backends["b"].model_dump(exclude={"url"})
    for model in Model.__subclasses__():
        assert [key for key in model.model_fields if not re.search(rf"\b{key}:", text)] == []


def test_defaults_follow_from_two_urls() -> None:
    config = parse(GOOD, {}, Path("/here"))

    assert (config.listen.host, config.listen.port, config.admin.port) == ("127.0.0.1", 5000, 5001)
    assert list(config.secondaries) == ["b"]
    assert config.backends["b"].auth == NoAuth()
    assert config.store.path == Path("/here/dualtrack.db")
    assert config.store.max_size == 10 * 1024**3
    assert config.delivery.give_up is None
    assert config.admin.admin_token is None


def test_values_are_read_with_their_units() -> None:
    text = f"{GOOD}delivery: {{linger: 0s, give_up: 2d}}\nstore: {{max_size: 1.5GiB}}\nregistry_wait: 250ms\n"
    config = parse(text, {}, Path())

    assert config.delivery.linger == timedelta()
    assert config.delivery.give_up == timedelta(days=2)
    assert config.store.max_size == 3 * 2**29
    assert config.registry_wait == timedelta(milliseconds=250)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        (f"azureml://westeurope.api.azureml.ms/mlflow/v2.0{WORKSPACE}", Kind.AZUREML),
        (f"https://westeurope.api.azureml.ms/mlflow/v2.0{WORKSPACE}", Kind.AZUREML),
        ("https://chinaeast2.api.ml.azure.cn/x", Kind.AZUREML),
        ("https://usgovvirginia.api.ml.azure.us/x", Kind.AZUREML),
        ("https://guid.workspace.westeurope.api.azureml.ms/x", Kind.AZUREML),
        ("databricks://adb-1.2.azuredatabricks.net", Kind.DATABRICKS),
        ("https://adb-1.2.azuredatabricks.net/", Kind.DATABRICKS),
        ("adb-1.2.azuredatabricks.net", Kind.DATABRICKS),
        ("https://ADB-1.2.AzureDatabricks.net", Kind.DATABRICKS),
        ("https://x.databricks.azure.us", Kind.DATABRICKS),
        ("https://x.databricks.azure.cn", Kind.DATABRICKS),
        ("https://dbc-1.cloud.databricks.com", Kind.DATABRICKS),
        ("https://1.2.gcp.databricks.com", Kind.DATABRICKS),
        ("https://mlflow.example.org", Kind.MLFLOW),
        ("http://[::1]:5000", Kind.MLFLOW),
        ("https://azuredatabricks.net.example.org", Kind.MLFLOW),
        ("https://evilazuredatabricks.net", Kind.MLFLOW),
        ("http://h:port", Kind.MLFLOW),
    ],
)
def test_kind_follows_from_the_url(url: str, kind: Kind) -> None:
    assert infer_kind(url) is kind


def test_sign_in_and_names_follow_from_the_kind() -> None:
    config = from_urls("https://adb-1.2.azuredatabricks.net", f"azureml://h.api.azureml.ms{WORKSPACE}", "primary")

    assert config.primary_backend.auth == DatabricksAuth()
    assert config.primary_backend.experiment_names.rule is NamingRule.KEEP
    assert config.secondaries["secondary"].auth == AzureAuth()
    assert config.secondaries["secondary"].experiment_names.rule is NamingRule.LAST_SEGMENT


def test_a_written_naming_rule_wins_over_the_kind() -> None:
    given = {"url": f"azureml://h.api.azureml.ms{WORKSPACE}", "experiment_names": {"rule": "replace"}}

    assert Backend.model_validate(given).experiment_names.rule is NamingRule.REPLACE


def test_from_urls_takes_the_options_of_serve(tmp_path: Path) -> None:
    config = from_urls(
        "http://a:1", "http://b:1", "secondary", port=0, admin_port=0, store="sqlite:j.db", base_dir=tmp_path
    )

    assert (config.registry, config.listen.port, config.admin.port) == ("secondary", 0, 0)
    assert config.store.path == tmp_path / "j.db"


def test_from_urls_expands_no_variables_and_reports_like_a_file() -> None:
    with pytest.raises(ConfigError) as caught:
        from_urls("${A}", None, None)

    assert [problem.path for problem in caught.value.problems] == ["registry", "backends.primary.url"]
    assert caught.value.problems[0].fix == "Name one of: primary"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///var/lib/dualtrack/journal.db", "/var/lib/dualtrack/journal.db"),
        ("sqlite:////var/lib/dualtrack/journal.db", "/var/lib/dualtrack/journal.db"),
        ("sqlite:////x.db", "/x.db"),
        ("sqlite:///./x.db", "/here/x.db"),
        ("sqlite:///../x.db", "/here/../x.db"),
        ("sqlite:x.db", "/here/x.db"),
        ("sqlite:/var/x.db", "/var/x.db"),
    ],
)
def test_store_path(url: str, path: str) -> None:
    config = parse(f"{GOOD}store: {{url: '{url}'}}", {}, Path("/here"))

    assert config.store.path == Path(path)
    assert Store(url=config.store.url).path == Path(path)


@pytest.mark.parametrize(
    "url", ["sqlite:///x.db", "sqlite://host/x", "sqlite:", "sqlite:///:memory:", "x.db", "sqlite:///a/"]
)
def test_store_urls_that_name_no_file(url: str) -> None:
    assert list(problems(f"{GOOD}store: {{url: '{url}'}}")) == ["store.url"]


def test_relative_files_start_at_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2\n")
    config = parse(backend("auth: {type: token, token_file: token}"), {}, tmp_path)
    auth = config.backends["b"].auth

    assert isinstance(auth, TokenAuth)
    assert auth.token_file == tmp_path / "token"
    assert auth.secret == Secret("hunter2")


def test_variables_expand_after_yaml_was_read() -> None:
    """A value with YAML syntax in it stays one value."""
    hosts = "['$$x', '${H}', '${E:-e}', '${U:-}u', '$plain']"
    config = parse(f"{GOOD}allowed_hosts: {hosts}\nlisten:\n  port: ${{P:-7000}}\n", {"H": "[a,b]:#c", "E": ""}, Path())

    assert config.listen.port == 7000
    assert config.allowed_hosts == ("$x", "[a,b]:#c", "e", "u", "$plain")


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("", "the file", "is empty"),
        ("# nothing\n", "the file", "is empty"),
        ("- a", "the file", "not a mapping"),
        ("a: [", "line 1, column 5", "is not YAML"),
        ("a: 1\n b: 2", "line 2, column 3", "is not YAML"),
        ("a: *hunter2", "line 1, column 4", "undefined alias"),
        ("a: !secret hunter2", "line 1, column 4", "is not YAML"),
        ("a: 1\n---\nb: 1", "line 2, column 1", "is not YAML"),
        ("a: 1\nb: \x00", "line 2", "character"),
        ("a: &a [*a]", "a[0]", "contains itself"),
        (f"{GOOD}primary: b", "primary", "is written twice, on lines 1 and 6"),
        (f"{GOOD}? [x]\n: 1", "the file", "a key that is not text"),
        (f"{GOOD}liste: {{}}", "liste", "is not a key"),
        (f"{GOOD}listen: {{prot: 1}}", "listen.prot", "is not a key"),
        (f"{GOOD}listen: 5", "listen", "section"),
        (f"{GOOD}listen: {{port: 70000}}", "listen.port", "more than 65535"),
        (f"{GOOD}listen: {{port: -1}}", "listen.port", "less than 0"),
        (f"{GOOD}listen: {{port: x}}", "listen.port", "whole number"),
        (f"{GOOD}listen: {{host: 5}}", "listen.host", "is not text"),
        (f"{GOOD}listen: {{host: 'http://x'}}", "listen.host", "not a host name"),
        (f"{GOOD}listen: {{host: '127.0.0.1:5000'}}", "listen.host", "not a host name"),
        (f"{GOOD}listen: {{host: 0.0.0.0}}", "listen.host", "reachable from other machines"),
        (f"{GOOD}admin: {{host: '::'}}", "admin.host", "no token"),
        (f"{GOOD}admin: {{port: 5000}}", "admin.port", "port of `listen`"),
        (f"{GOOD}admin: {{token: hunter2}}", "admin.token", "written into the file"),
        (f"{GOOD}admin: {{token: '${{NONE:-hunter2}}'}}", "admin.token", "written into the file"),
        (f"{GOOD}admin: {{token: '${{NONE}}'}}", "admin.token", "environment variable NONE"),
        (f"{GOOD}admin: {{token: '${{NONE:-}}'}}", "admin.token", "is empty"),
        (f"{GOOD}admin: {{token: '${{TOKEN}}', token_file: x}}", "admin.token", "beside token_file"),
        (f"{GOOD}admin: {{token_file: /nowhere/x}}", "admin.token_file", "cannot be read"),
        (f"{GOOD}admin: {{token_file: /dev/null}}", "admin.token_file", "is empty"),
        (f"{GOOD}auth: {{token: '${{TOKEN}}'}}", "auth", "has no type"),
        (f"{GOOD}auth: {{type: bearer}}", "auth", "has no token"),
        (f"{GOOD}auth: {{type: basic, password: '${{TOKEN}}'}}", "auth.username", "is missing"),
        (f"{GOOD}auth: {{type: basic, username: 'a:b', password: '${{TOKEN}}'}}", "auth.username", "colon"),
        (f"{GOOD}auth: {{type: bearer, token: '${{TOKEN}}', username: x}}", "auth.username", "is not a key"),
        (f"{GOOD}insecure: maybe", "insecure", "neither true nor false"),
        (f"{GOOD}allowed_hosts: x", "allowed_hosts", "is not a list"),
        (f"{GOOD}allowed_hosts: ['http://x']", "allowed_hosts[0]", "is not a host name"),
        (f"{GOOD}artifacts: 2026-02-31", "artifacts", "is not known"),
        ("a: " + "[" * 5000, "the file", "nested too deeply"),
        (at("azureml://h/x', kind: 'mlflow"), "backends.b.url", "but kind is mlflow"),
        (f"{GOOD}artifacts: both", "artifacts", "is not known"),
        (f"{GOOD}log: {{level: '${{'}}", "log.level", "starts no variable"),
        (f"{GOOD}store: {{max_size: 10}}", "store.max_size", "less than 1MiB"),
        (f"{GOOD}store: {{max_size: 10 parsecs}}", "store.max_size", "is not a size"),
        (f"{GOOD}store: {{max_size: true}}", "store.max_size", "is not a size"),
        (f"{GOOD}store: {{url: 'postgresql://u:hunter2@h/d'}}", "store.url", "later release"),
        (f"{GOOD}delivery: {{linger: 5}}", "delivery.linger", "is not a duration"),
        (f"{GOOD}delivery: {{linger: 5 weeks}}", "delivery.linger", "is not a duration"),
        (f"{GOOD}delivery: {{linger: 999999999999d}}", "delivery.linger", "longer than can be counted"),
        (f"{GOOD}delivery: {{attempt_timeout: 0s}}", "delivery.attempt_timeout", "longer than nothing"),
        (f"{GOOD}delivery: {{retry_min: 10m}}", "delivery.retry_min", "longer than retry_max, 5m"),
        (f"{GOOD}delivery: {{workers: 0}}", "delivery.workers", "less than 1"),
        (f"{GOOD}breaker: {{pause_max: 1s}}", "breaker.pause_min", "longer than pause_max, 1s"),
        (GOOD.replace("primary: a", "primary: c"), "primary", "is not one of the backends"),
        (GOOD.replace("primary: a", "primary: [a]"), "primary", "is not a name"),
        (GOOD.replace("primary: a\n", ""), "primary", "is missing"),
        (GOOD.replace("registry: a", "registry: c"), "registry", "is not one of the backends"),
        (GOOD.replace("registry: a", "registry: [a, b]"), "registry", "two registries cannot be kept in step"),
        (GOOD.replace("registry: a", "registry: a, b"), "registry", "two registries cannot be kept in step"),
        (GOOD.replace("registry: a\n", ""), "registry", "two registries cannot be kept in step"),
        ("primary: a\nregistry: a", "backends", "is missing"),
        ("primary: a\nregistry: a\nbackends: {}", "backends", "is empty"),
        (GOOD.replace("  b:", "  b.c:"), "backends.b.c", "one short word"),
        (f"{GOOD}  c:\n", "backends.c.url", "is missing"),
        (at("http://A:1/"), "backends.b.url", "same address as that of a"),
        (at("mlflow.example.org"), "backends.b.url", "has no scheme"),
        (at("./mlruns"), "backends.b.url", "has no scheme"),
        (at("file:///mlruns"), "backends.b.url", "is not a URL"),
        (at("ftp://h/mlruns"), "backends.b.url", "is not an HTTP address"),
        (at("http://h:port"), "backends.b.url", "is not a URL"),
        (at("http://u:hunter2@h"), "backends.b.url", "has credentials in it"),
        (at("http://u:hunter2/x@h"), "backends.b.url", "is not a URL"),
        (at("http://h/?sig=hunter2"), "backends.b.url", "has a query"),
        (at("http://localhost:5000"), "backends.b.url", "where dualtrack itself listens"),
        (at("databricks://profile"), "backends.b.url", "names a profile"),
        (at("azureml://h.api.azureml.ms/mlflow/v2.0"), "backends.b.url", "names no Azure ML workspace"),
        (at("https://h.api.azureml.ms/mlflow/v2.0"), "backends.b.url", "names no Azure ML workspace"),
        (backend("kind: wandb"), "backends.b.kind", "is not known"),
        (backend("auth: hunter2"), "backends.b.auth", "section"),
        (backend("auth: {type: forward}"), "backends.b.auth.type", "works on the primary alone"),
        (
            backend("auth: {type: forward}").replace("primary: a", "primary: b\nlinks: both"),
            "links",
            "wants a tag on the primary",
        ),
        (f"{GOOD}links: off", "links", "is not known here"),
        (backend("auth: {type: tokn}"), "backends.b.auth", "not a way to sign in"),
        (backend("auth: {type: token}"), "backends.b.auth", "has no token"),
        (backend("auth: {type: token, tokn: hunter2}"), "backends.b.auth.tokn", "is not a key"),
        (backend("auth: {type: token, token: hunter2}"), "backends.b.auth.token", "written into the file"),
        (
            backend("auth: {type: basic, username: x, password: 12}"),
            "backends.b.auth.password",
            "written into the file",
        ),
        (backend("ca_file: /nowhere/x.pem"), "backends.b.ca_file", "cannot be read"),
        (backend("run_ids: same"), "backends.b.run_ids", "is for Azure ML"),
        (backend("web_url: 'ftp://x'"), "backends.b.web_url", "a browser opens"),
        (backend("experiment_names: {rul: keep}"), "backends.b.experiment_names.rul", "is not a key"),
        (backend("experiment_names: {rule: template}"), "backends.b.experiment_names.template", "is missing"),
        (
            backend("experiment_names: {rule: template, template: x}"),
            "backends.b.experiment_names.template",
            "has no {name}",
        ),
        (backend("experiment_names: {template: 'x{name}'}"), "backends.b.experiment_names.template", "is not used"),
    ],
)
def test_each_problem_is_found_alone(text: str, path: str, message: str) -> None:
    """One mistake is one problem, at its path, with a fix."""
    found = problems(text)

    if path in ("the file", "a[0]") or path.startswith("line") or text.startswith("a:"):
        assert path in found
    else:
        assert list(found) == [path]
    assert message in found[path].message
    assert found[path].fix


def test_all_problems_are_reported_at_once() -> None:
    text = """
listen: {host: 0.0.0.0, port: 99999}
admn: {port: 5001}
primary: nope
registry: [a, b]
backends:
  a: {url: "https://u:hunter2@h", auth: {type: token, token: hunter2}}
  b: {url: "${B_URL}", auth: {type: forward}, conect_timeout: 5s}
  c: {url: "http://c:1", read_timeout: 5}
delivery: {retry_min: 10m, workers: x, linger: soon}
store: {max_size: 3}
"""
    found = problems(text)

    assert set(found) == {
        "listen.host",
        "listen.port",
        "admn",
        "primary",
        "registry",
        "backends.a.url",
        "backends.a.auth.token",
        "backends.b.url",
        "backends.b.auth.type",
        "backends.b.conect_timeout",
        "backends.c.read_timeout",
        "delivery.retry_min",
        "delivery.workers",
        "delivery.linger",
        "store.max_size",
    }
    assert found["admn"].fix == "Did you mean admin?"
    assert found["backends.b.conect_timeout"].fix == "Did you mean connect_timeout?"
    assert found["registry"].fix == "Name one of: a, b, c"
    assert found["backends.a.url"].value == "https://…@h"
    assert found["listen.port"].value == "99999"


def test_a_missing_variable_causes_no_further_problems() -> None:
    text = f"{GOOD}listen: {{host: '${{NONE}}'}}\nadmin: {{host: '${{NONE}}'}}"

    assert list(problems(text)) == ["listen.host", "admin.host"]


def test_a_broken_auth_does_not_look_like_none() -> None:
    assert list(problems(f"{GOOD}listen: {{host: 0.0.0.0}}\nauth: {{type: beerer}}")) == ["auth"]


def test_ways_to_listen_beyond_loopback() -> None:
    """With auth, or told that nobody shall be asked; the admin side with a token."""
    guarded = parse(f"{GOOD}listen: {{host: '::'}}\nauth: {{type: bearer, token: '${{TOKEN}}'}}", ENVIRON, Path())
    told = parse(f"{GOOD}listen: {{host: '::'}}\ninsecure: true", {}, Path())
    admin = parse(f"{GOOD}admin: {{host: 0.0.0.0, token: '${{TOKEN}}'}}", ENVIRON, Path())

    assert isinstance(guarded.auth, BearerAuth)
    assert guarded.auth.secret == Secret("hunter2")
    assert "insecure is true" in explain(told)
    assert admin.admin.admin_token == Secret("hunter2")


def test_unquoted_variables_between_braces_are_explained() -> None:
    found = problems("admin: {token: ${TOKEN}}")

    assert '"${NAME}" in quotes' in next(iter(found.values())).fix


def test_sections_share_keys_by_merging() -> None:
    text = """
primary: a
registry: a
backends:
  a: &shared {url: "http://a:1", read_timeout: 5s}
  b: {<<: *shared, url: "http://b:1"}
"""
    config = parse(text, {}, Path())

    assert config.backends["b"].read_timeout == timedelta(seconds=5)
    assert config.backends["b"].url == "http://b:1"


def test_a_section_emptied_by_comments_means_its_defaults() -> None:
    config = parse(f"{GOOD}limits:\n  # max_body: 1MiB\nstore:\nauth:\nadmin: {{token:}}\n", {}, Path())

    assert config == parse(GOOD, {}, Path())


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / name, {})

    (problem,) = caught.value.problems
    assert problem.path == str(tmp_path / name)
    assert "--config" in problem.fix
    assert "$DUALTRACK_CONFIG" in problem.fix


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "x", {})


def test_secrets_never_show(tmp_path: Path) -> None:
    """P9: not in repr, str, dumps, explanations, nor in what pydantic raises."""
    (tmp_path / "password").write_text("hunter2")
    text = backend("auth: {type: token, token: '${TOKEN}'}").replace(
        "'http://a:1'", "'http://a:1', auth: {type: basic, username: u, password_file: password}"
    )
    config = parse(
        f"{text}admin: {{token: '${{TOKEN}}'}}\nauth: {{type: bearer, token: '${{TOKEN}}'}}", ENVIRON, tmp_path
    )

    for shown in (repr(config), str(config), str(config.model_dump()), config.model_dump_json(), explain(config)):
        assert "hunter2" not in shown
    with pytest.raises(ValidationError) as caught:
        TokenAuth.model_validate({"type": "token", "token": ["hunter2"], "hunter": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_a_secret_file_that_went_away_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2")
    config = parse(f"{GOOD}admin: {{token_file: token}}", {}, tmp_path)
    (tmp_path / "token").unlink()

    with pytest.raises(ConfigError, match="cannot be read"):
        _ = config.admin.admin_token


def test_a_secret_of_two_lines_is_refused(tmp_path: Path) -> None:
    """A line break in a header would be a second header."""
    (tmp_path / "token").write_text("hunter2\nX-Other: hunter2\n")

    assert list(problems(f"{GOOD}admin: {{token_file: token}}", tmp_path)) == ["admin.token_file"]


def test_models_are_frozen() -> None:
    config = parse(GOOD, {}, Path())

    with pytest.raises(ValidationError):
        config.listen.port = 1  # type: ignore[misc] # that it cannot be set is what is tested


def test_explain_says_where_things_go() -> None:
    text = GOOD.replace("registry: a", "registry: b").replace("http://b:1", "https://x.cloud.databricks.com")
    said = explain(parse(f"{text}store: {{on_full: primary-only}}\ndelivery: {{give_up: 7d}}", {}, Path("/here")))

    assert "http://127.0.0.1:5000" in said
    assert "a: MLflow at http://a:1" in said
    assert "b: Databricks at https://x.cloud.databricks.com" in said
    assert "go to b, and nowhere else" in said
    assert "/here/dualtrack.db, at most 10GiB" in said
    assert "the primary alone" in said
    assert "for 7d" in said
    assert "only absolute experiment names" in said


def test_explain_one_backend_alone() -> None:
    assert "nothing is journaled" in explain(from_urls("http://a:1", None, "primary", host="127.0.0.1"))


@given(st.integers(min_value=0, max_value=10**12))
def test_durations_round_trip(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)

    assert parse_duration(duration_text(duration)) == duration


@given(st.integers(min_value=0, max_value=10**15 - 1))
def test_sizes_round_trip(size: int) -> None:
    assert parse_size(size_text(size)) == size


@given(st.text())
def test_any_text_gives_a_configuration_or_problems(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, {}, Path())

    assert caught.value.problems


@given(st.text(), st.sampled_from(["listen", "backends", "auth", "store", "registry", "delivery"]))
def test_any_value_of_a_section_is_at_worst_a_problem(text: str, key: str) -> None:
    kept = "".join(line for line in GOOD.splitlines(keepends=True) if not line.startswith(key))

    with pytest.raises(ConfigError) as caught:
        parse(f"{kept}{key}: ${{X}}\nunknown: 1\n", {"X": text}, Path())
    assert caught.value.problems


def test_importing_is_light() -> None:
    """`serve` starts fast: no vendor library is loaded for its configuration."""
    code = "import sys, dualtrack.config; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"mlflow", "azure", "databricks", "aiohttp"} & set(loaded)
