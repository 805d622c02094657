"""PSC, posterior sampling-based compression (Elata, Michaeli and Elad, TMLR 2025)."""
