"""How often the soak repeats what chance decides in `make soak`."""

#: Captures under traffic, of 1, 2, 3, … milliseconds, in each case of the order tests.
CAPTURES = 200
#: How often the short order tests of `make test` are run again.
ORDER_REPEATS = 30
#: TCP transfers with and without captures that are compared.
TCP_PAIRS = 30
#: Each row of the crash grid at which the agent stops and resumes.
STOP_REPEATS = 3
#: A controller that is away for long while the state that it waits for never comes.
AWAY_REPEATS = 30
#: Seconds for each fuzz target.
FUZZ_SECONDS = 60
