"""Meta-World: tasks, environment, scripted experts, recorder."""
