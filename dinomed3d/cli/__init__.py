"""The console command ``dinomed3d``: one file per verb, heavy imports only inside the verbs."""
