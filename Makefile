# Every target is one script; read those.
.PHONY: setup demo up test check lock

setup:
	@scripts/setup

demo:
	@scripts/demo

up:
	@scripts/serve

test:
	@scripts/test

check:
	@scripts/check

lock:
	@scripts/lock
