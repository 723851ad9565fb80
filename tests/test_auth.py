"""Who we are: the three ways in, and every way in which they can fail."""

import html
import socket
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import requests
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tap_envoy.auth import EnvoyAuthenticator
from tap_envoy.errors import EnvoyError
from tests.conftest import Scene
from tests.hasty import RETRY
from tests.sandbox import Answer, serve

TOKEN = "/oauth2/token"
LIST = "/v1/locations"


# The three ways in


def test_the_api_key_goes_into_its_header_and_asks_for_no_token(scene: Scene) -> None:
    run = scene.run()
    assert run.code == 0
    assert len(run.records()) == 250
    assert scene.envoy.asked(TOKEN) == []
    for request in scene.envoy.asked(LIST):
        assert request.headers["x-api-key"] == scene.envoy.api_key
        assert "authorization" not in request.headers


def test_the_api_key_wins_over_the_other_ways(scene: Scene) -> None:
    run = scene.run(api_key=scene.envoy.api_key, **scene.login)
    assert run.code == 0
    assert scene.envoy.asked(TOKEN) == []


def test_the_password_grant_is_sent_as_the_guide_has_it(scene: Scene) -> None:
    run = scene.run(**scene.login)
    assert run.code == 0
    assert len(run.records()) == 250
    (login,) = scene.envoy.asked(TOKEN)
    assert login.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert login.headers["authorization"].startswith("Basic ")
    assert login.form == {
        "grant_type": "password",
        "username": scene.envoy.username,
        "password": scene.envoy.password,
        "scope": "token.refresh,locations.read",
    }
    for request in scene.envoy.asked(LIST):
        assert request.headers["authorization"].removeprefix("Bearer ") in scene.envoy.issued
        assert "x-api-key" not in request.headers


def test_the_refresh_grant_is_sent_as_the_guide_has_it(scene: Scene) -> None:
    token = scene.envoy.new_refresh_token("locations.read")
    run = scene.run(refresh_token=token, **scene.client)
    assert run.code == 0
    assert len(run.records()) == 250
    (refresh,) = scene.envoy.asked(TOKEN)
    assert refresh.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert "authorization" not in refresh.headers
    assert refresh.form == {"grant_type": "refresh_token", "refresh_token": token, **scene.client}


def test_the_refresh_token_is_tried_before_the_password(scene: Scene) -> None:
    token = scene.envoy.new_refresh_token("locations.read")
    assert scene.run(refresh_token=token, **scene.login).code == 0
    assert [r.form["grant_type"] for r in scene.envoy.asked(TOKEN)] == ["refresh_token"]


def test_scopes_of_the_settings_are_asked_for_instead(scene: Scene) -> None:
    run = scene.run(scopes=["locations.read"], **scene.login)
    assert run.code == 0
    assert scene.envoy.asked(TOKEN)[0].form["scope"] == "locations.read"


# Refused


def test_a_dead_refresh_token_gives_way_to_the_password(scene: Scene) -> None:
    run = scene.run(refresh_token="long-dead-refresh-token", **scene.login)
    assert run.code == 0
    assert len(run.records()) == 250
    grants = [request.form["grant_type"] for request in scene.envoy.asked(TOKEN)]
    assert grants == ["refresh_token", "password"]


def test_a_dead_refresh_token_alone_says_how_to_get_a_new_one(scene: Scene) -> None:
    run = scene.run(refresh_token="long-dead-refresh-token", **scene.client)
    run.failed_with("refresh grant", "invalid_grant", "not valid", "get a new one", "`password`")
    assert len(scene.envoy.asked(TOKEN)) == 1


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_login_says_which_grant_why_and_where_to_look(scene: Scene, status: int) -> None:
    body = {"error": "invalid_grant", "error_description": "Nobody of that name", "x": "hush"}
    scene.envoy.script(TOKEN, Answer(status, body))
    sentence = scene.run(**scene.login).failed_with(
        "password grant", f"HTTP {status}", "invalid_grant", "Nobody of that name", "`username`"
    )
    assert "hush" not in sentence
    assert len(scene.envoy.asked(TOKEN)) == 1


def test_a_wrong_password_is_refused_once(scene: Scene) -> None:
    run = scene.run(**{**scene.login, "password": "not-the-right-one-at-all"})
    run.failed_with("password grant", "invalid_grant", "check `username`, `password`")
    assert len(scene.envoy.asked(TOKEN)) == 1


def test_a_refusal_that_repeats_the_secrets_does_not_show_them(scene: Scene) -> None:
    echo = f"bad {scene.envoy.password} of {scene.envoy.client_secret}"
    scene.envoy.script(TOKEN, Answer(401, {"error": "no", "error_description": echo}))
    scene.run(**scene.login).failed_with("bad *** of ***")


@pytest.mark.parametrize("body", [b"<html>hush</html>", b"", b"[" * 100_000, b"\xff\xfe"])
def test_a_refusal_that_is_not_json_is_not_shown(scene: Scene, body: bytes) -> None:
    scene.envoy.script(TOKEN, Answer(401, body))
    sentence = scene.run(**scene.login).failed_with("password grant", "HTTP 401")
    assert "hush" not in sentence


def test_secrets_are_not_shown_in_other_spellings_either(scene: Scene) -> None:
    password = scene.envoy.password
    for echo in (html.escape(password), quote_plus(password), quote(password)):
        scene.envoy.script(LIST, Answer(401), Answer(400, f"<p>{echo}</p>".encode()))
        scene.run(**scene.login).failed_with("<p>***</p>")
        scene.envoy.requests.clear()


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (Answer(200, b"[" * 100_000), "without an access token"),
        (Answer(200, b"<html>secret-page</html>"), "without an access token"),
        (Answer(200, b"[1]"), "without an access token"),
        (Answer(200, {"token": "hidden-thing"}), "without an access token"),
        (Answer(200, {"access_token": "two\nlines"}), "without an access token"),
        (Answer(200, {"access_token": None}), "without an access token"),
        (Answer(404, b"nothing here"), "HTTP 404"),
        (Answer(302, b"", {"Location": "http://127.0.0.1:9/elsewhere"}), "HTTP 302"),
        (Answer(302, b"", {"Location": "http://[bad"}), "HTTP 302"),
    ],
)
def test_an_answer_that_is_no_token_is_a_sentence(scene: Scene, answer: Answer, part: str) -> None:
    scene.envoy.script(TOKEN, answer)
    run = scene.run(**scene.login)
    sentence = run.failed_with(part, "check `token_url`")
    assert len(scene.envoy.asked(TOKEN)) == 1
    assert "secret-page" not in run.err
    assert "hidden-thing" not in run.err
    assert "elsewhere" not in sentence


def test_a_refused_api_key_says_so(scene: Scene) -> None:
    run = scene.run(api_key="not-the-key-of-this-company")
    run.failed_with("locations", "HTTP 401", "check `api_key`")
    assert run.records() == []
    assert len(scene.envoy.asked(LIST)) == 1


# Faults that pass


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("way", ["password", "refresh"])
def test_a_token_address_that_is_briefly_down_is_waited_for(
    scene: Scene, status: int, way: str
) -> None:
    scene.envoy.script(TOKEN, Answer(status, b"busy"), Answer(status, b"busy"))
    config = scene.login
    if way == "refresh":
        token = scene.envoy.new_refresh_token("locations.read")
        config = {**scene.client, "refresh_token": token}
    run = scene.run(**config)
    assert run.code == 0
    assert len(run.records()) == 250
    assert len(scene.envoy.asked(TOKEN)) == 3


def test_a_token_address_that_stays_down_is_given_up(scene: Scene) -> None:
    scene.envoy.script(TOKEN, *[Answer(503, b"busy")] * 9)
    scene.run(**scene.login).failed_with("token address", "HTTP 503", "Gave up after 4 tries")
    assert len(scene.envoy.asked(TOKEN)) == 4


def test_a_token_address_that_nobody_serves_is_named(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    run = scene.run(**scene.login, token_url=f"http://127.0.0.1:{port}/oauth2/token")
    run.failed_with("no connection", "`token_url`", "Gave up after 4 tries")


def test_a_login_whose_answer_breaks_off_is_sent_again(scene: Scene) -> None:
    scene.envoy.script(TOKEN, Answer(cut=True))
    run = scene.run(**scene.login)
    assert run.code == 0
    assert len(scene.envoy.asked(TOKEN)) == 2


@pytest.mark.parametrize("lost", [Answer(cut=True, effect=True), Answer(delay=2)])
def test_a_refresh_whose_answer_is_lost_is_not_sent_again(scene: Scene, lost: Answer) -> None:
    scene.envoy.script(TOKEN, lost)
    token = scene.envoy.new_refresh_token("locations.read")
    run = scene.run(refresh_token=token, request_timeout=1, **scene.login)
    assert run.code == 0
    assert len(run.records()) == 250
    grants = [request.form["grant_type"] for request in scene.envoy.asked(TOKEN)]
    assert grants == ["refresh_token", "password"]


def test_a_lost_refresh_without_a_password_says_what_to_do(scene: Scene) -> None:
    scene.envoy.script(TOKEN, Answer(cut=True, effect=True))
    token = scene.envoy.new_refresh_token("locations.read")
    run = scene.run(refresh_token=token, **scene.client)
    run.failed_with("broke before the answer", "cannot be used again", "get a new one")
    assert len(scene.envoy.asked(TOKEN)) == 1


# A token that is refused in mid-run


def test_a_token_revoked_in_mid_run_is_replaced_and_no_row_is_lost(scene: Scene) -> None:
    scene.envoy.script(LIST, Answer(), Answer(401, {"message": "expired"}))
    run = scene.run(**scene.login)
    assert run.code == 0
    assert [row["id"] for row in run.records()] == [r["id"] for r in scene.envoy.rows["locations"]]
    grants = [request.form["grant_type"] for request in scene.envoy.asked(TOKEN)]
    assert grants == ["password", "refresh_token"]


def test_a_fresh_token_that_is_refused_too_ends_the_run(scene: Scene) -> None:
    scene.envoy.script(LIST, *[Answer(401, {"message": "go away"})] * 9)
    run = scene.run(**scene.login)
    run.failed_with("HTTP 401", "go away", "Global Admin")
    assert len(scene.envoy.asked(TOKEN)) == 2
    assert len(scene.envoy.asked(LIST)) == 2


def test_a_200_that_carries_a_401_counts_as_one(scene: Scene) -> None:
    scene.envoy.script(LIST, Answer(200, {"status": 401}))
    run = scene.run(**scene.login)
    assert run.code == 0
    assert len(run.records()) == 250
    assert len(scene.envoy.asked(TOKEN)) == 2


# The life of a token, with a clock that the test turns


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2024, 5, 17, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def turn(self, **by: float) -> None:
        self.now += timedelta(**by)


def authenticator(scene: Scene, clock: Clock, **changes: Any) -> EnvoyAuthenticator:
    arguments: dict[str, Any] = {
        **scene.login,
        "token_url": scene.address + TOKEN,
        "refresh_token": None,
        "scopes": ("token.refresh", "locations.read"),
        "session": requests.Session(),
        "timeout": 5,
        "retry": RETRY,
        "now": clock,
    }
    return EnvoyAuthenticator(**{**arguments, **changes})


def sign(auth: EnvoyAuthenticator) -> str:
    request = requests.Request("GET", "http://127.0.0.1/v1/locations").prepare()
    return str(auth(request).headers["Authorization"])


@pytest.mark.parametrize("lifetime", [86400, "86400", 7200.0, 100])
def test_a_token_is_renewed_before_it_ends(scene: Scene, lifetime: Any) -> None:
    scene.envoy.token_answer = {"expires_in": lifetime}
    clock = Clock()
    auth = authenticator(scene, clock)
    first = sign(auth)
    leeway = min(300, float(lifetime) / 10)
    clock.turn(seconds=float(lifetime) - leeway - 1)
    assert sign(auth) == first
    clock.turn(seconds=2)
    assert sign(auth) != first
    assert len(scene.envoy.asked(TOKEN)) == 2


@pytest.mark.parametrize("odd", [None, 0, -5, "soon", True, [], {}, "NaN", "inf"])
def test_an_odd_lifetime_means_the_documented_day(scene: Scene, odd: Any) -> None:
    scene.envoy.token_answer = {"expires_in": odd}
    clock = Clock()
    auth = authenticator(scene, clock)
    first = sign(auth)
    assert auth.expires_in == 86400
    clock.turn(hours=24, minutes=-6)
    assert sign(auth) == first
    clock.turn(minutes=2)
    assert sign(auth) != first


def test_each_renewal_uses_the_newest_refresh_token(scene: Scene) -> None:
    clock = Clock()
    auth = authenticator(scene, clock)
    for _ in range(4):
        sign(auth)
        clock.turn(days=1)
    sent = [r.form["refresh_token"] for r in scene.envoy.asked(TOKEN)[1:]]
    assert len(set(sent)) == 3  # the sandbox takes each of them once only


@pytest.mark.parametrize("absent", [None, "", 5])
def test_an_answer_without_a_refresh_token_keeps_the_old_one(scene: Scene, absent: Any) -> None:
    clock = Clock()
    old = scene.envoy.new_refresh_token("locations.read")
    auth = authenticator(scene, clock, refresh_token=old, username=None, password=None)
    scene.envoy.token_answer = {"refresh_token": absent}
    sign(auth)
    assert auth.refresh_token == old
    clock.turn(days=1)
    with pytest.raises(EnvoyError, match="cannot be used again"):
        sign(auth)  # for this sandbox forgets it; what counts is that it was sent
    assert [r.form["refresh_token"] for r in scene.envoy.asked(TOKEN)] == [old, old]


def test_past_its_thirty_days_the_refresh_token_is_not_sent(scene: Scene) -> None:
    clock = Clock()
    auth = authenticator(scene, clock)
    sign(auth)
    clock.turn(days=30, seconds=1)
    sign(auth)
    grants = [request.form["grant_type"] for request in scene.envoy.asked(TOKEN)]
    assert grants == ["password", "password"]


def test_past_its_thirty_days_and_without_a_password_the_run_ends(scene: Scene) -> None:
    clock = Clock()
    token = scene.envoy.new_refresh_token("locations.read")
    auth = authenticator(scene, clock, refresh_token=token, username=None, password=None)
    sign(auth)
    clock.turn(days=31)
    with pytest.raises(EnvoyError, match=r"30 days.*get a new one"):
        sign(auth)


def test_threads_share_one_login_and_one_renewal(scene: Scene) -> None:
    clock = Clock()
    auth = authenticator(scene, clock)
    request = requests.Request("GET", "http://127.0.0.1/").prepare()
    refused = auth(request)

    def work() -> None:
        copy = refused.copy()
        auth.renew(copy)
        auth(copy)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(scene.envoy.asked(TOKEN)) == 2


def test_waits_between_tries_double_and_last_five_minutes() -> None:
    waits: list[float] = []
    retry = replace(type(RETRY)(), sleep=waits.append)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}{TOKEN}"
    auth = EnvoyAuthenticator(
        token_url=address,
        client_id="c",
        client_secret="s",
        username="u",
        password="p",
        refresh_token=None,
        scopes=(),
        session=requests.Session(),
        timeout=5,
        retry=retry,
    )
    with pytest.raises(EnvoyError, match="Gave up"):
        sign(auth)
    assert waits[0] <= 2
    assert max(waits) <= 60
    assert sum(waits) >= 300
    assert len(set(waits)) == len(waits)  # jitter


@given(password=st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_password_arrives_as_it_is(scene: Scene, password: str) -> None:
    scene.envoy.password = password
    sign(authenticator(scene, Clock()))
    assert scene.envoy.asked(TOKEN)[-1].form["password"] == password


# The way to Envoy


def test_netrc_is_not_read(scene: Scene) -> None:
    netrc = scene.folder / ".netrc"
    netrc.write_text("machine 127.0.0.1 login mallory password from-netrc\n")
    netrc.chmod(0o600)
    token = scene.envoy.new_refresh_token("locations.read")
    home = {"HOME": str(scene.folder), "NETRC": str(netrc)}
    assert scene.run(environment=home, refresh_token=token, **scene.client).code == 0
    assert scene.run(environment=home).code == 0
    assert all(
        not r.headers.get("authorization", "").startswith("Basic") for r in scene.envoy.requests
    )


def test_a_proxy_of_the_environment_is_used(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen: list[bytes] = []

        def proxy() -> None:
            connection, _ = listener.accept()
            with connection:
                seen.append(connection.recv(65536).splitlines()[0])
                body = b'{"data": [{"id": "by-proxy"}], "meta": {"total": 1}}'
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)

        threading.Thread(target=proxy, daemon=True).start()
        port = listener.getsockname()[1]
        way = {"http_proxy": f"http://127.0.0.1:{port}", "no_proxy": "example.com"}
        run = scene.run(environment=way)
    assert seen[0].startswith(f"GET {scene.address}/v1/locations?".encode())
    assert "by-proxy" in run.out


def test_a_proxy_that_is_not_there_is_named(scene: Scene) -> None:
    way = {"http_proxy": "http://user:proxy-password@127.0.0.1:9", "no_proxy": "example.com"}
    run = scene.run(environment=way)
    run.failed_with("proxy on the way to Envoy", "HTTPS_PROXY")
    assert "proxy-password" not in run.err


@pytest.mark.parametrize("address", ["https://a..b/v1", "https://" + "x" * 70 + ".example/v1"])
def test_an_address_that_cannot_be_asked_is_named_at_once(scene: Scene, address: str) -> None:
    run = scene.run(api_url=address)
    sentence = run.failed_with("no way to ask", "`api_url`")
    assert "Gave up" not in sentence


def test_a_ca_bundle_of_the_environment_is_used(scene: Scene) -> None:
    authority = trustme.CA()
    bundle, certificate = scene.folder / "ca.pem", scene.folder / "server.pem"
    authority.cert_pem.write_to_path(bundle)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    with serve(scene.envoy, certificate) as address:
        there = {"api_url": f"{address}/v1", "token_url": address + TOKEN}
        trusting = {"REQUESTS_CA_BUNDLE": str(bundle)}
        run = scene.run(environment=trusting, **{**scene.login, **there})
        assert run.code == 0
        assert len(run.records()) == 250
        run = scene.run(environment={"REQUESTS_CA_BUNDLE": ""}, **there)
    run.failed_with("certificate", "`api_url`", "REQUESTS_CA_BUNDLE")
