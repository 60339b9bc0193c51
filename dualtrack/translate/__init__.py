"""Pure translation: what a write means on another backend. No I/O; bodies in, bodies out, ids learned."""
