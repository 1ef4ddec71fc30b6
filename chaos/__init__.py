"""Kills, and the proof that nothing was lost: history (what clients saw), checker (a pure judge), storms (what is
done)."""
