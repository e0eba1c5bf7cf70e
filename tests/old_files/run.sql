BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'mnas');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
INSERT INTO "study_directions" VALUES(2,'MINIMIZE',1,1);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'format','3');
INSERT INTO "study_user_attributes" VALUES(2,1,'config','{"data": "digits", "space": {"name": "tiny", "skeleton": {"filters": [8], "layers": [1], "strides": [2], "stem_filters": 8, "stem_stride": 2, "head_filters": 8, "activation": "relu", "dropout": 0.2, "bn_epsilon": 0.001, "bn_momentum": 0.01, "padding": "same"}, "choices": {"op": ["mbconv2", "mbconv3"], "kernel": [3, 5], "se_ratio": [0.0], "skip": ["none"], "filters": [1.0], "layers": [1]}, "block": {}}, "input_size": 12, "output_stride": "auto", "controller": "random", "candidates_per_update": 2, "seed": 5, "reward": "target", "target_latency_ms": "auto", "alpha": "auto", "beta": "auto", "latency_limit": "inf", "max_size_mb": "inf", "max_memory_mb": "inf", "device": "host", "device_weights": "worst", "latency": "measured", "latency_budget_s": 0.1, "latency_threads": "auto", "proxy": {"epochs": 1, "batch_size": 64, "fewest_steps": 1, "learning_rate": 0.064, "warmup": 0.2, "label_smoothing": 0.1, "weight_decay": 1e-05, "repeats": 1, "accelerator": "cpu", "threads": 1}, "max_images_per_class": 20, "data_content": "8277bedb83f09c84"}');
INSERT INTO "study_user_attributes" VALUES(3,1,'calibrations','{"host": [{"reference": "mobilenetv2", "reference_ms": 0.003120547257576955, "low_ms": 0.002727743883393934, "high_ms": 0.0035699155063836116, "light_ratio": 0.994406473874394, "light_ratio_low": 0.8407259761107513, "light_ratio_high": 1.1761789969399523, "input_size": 12, "runtime": "litert", "threads": 1, "batch": 1, "unit": "host", "device": {"processor": "AMD EPYC", "machine": "x86_64", "cores": 2, "os": "Linux", "runtime": "LiteRT 2.3.0 XNNPACK"}, "session_error": 0.004, "pinned_core": 1, "realtime": true, "unit_scale": 1.0}]}');
INSERT INTO "study_user_attributes" VALUES(4,1,'predictors','{}');
INSERT INTO "study_user_attributes" VALUES(5,1,'objective','{"form": "target", "target_latency_ms": 0.003120547257576955, "alpha": -0.1, "beta": -1.0}');
INSERT INTO "study_user_attributes" VALUES(6,1,'other_objectives','[]');
INSERT INTO "study_user_attributes" VALUES(7,1,'sharing','{"targets_ms": {"host": 0.003120547257576955}, "weights": {}}');
INSERT INTO "study_user_attributes" VALUES(8,1,'provenance','{"mnas": "0.1.0", "versions": {"python": "3.11.7", "ai-edge-litert": "2.3.0", "optuna": "5.0.0", "timm": "1.0.31", "torch": "2.14.1", "torchvision": "0.29.1"}, "devices": {"host": {"processor": "AMD EPYC", "machine": "x86_64", "cores": 2, "os": "Linux", "runtime": "LiteRT 2.3.0 XNNPACK"}}, "data": {"name": "digits", "fingerprint": "8277bedb83f09c84", "classes": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], "train_images": 160, "val_images": 40, "skipped": 0}, "command": "mnas search --data digits --max-images-per-class 20 --space tiny.toml --input-size 12 --epochs 1 --fewest-steps 1 --trials 2 --candidates-per-update 2 --latency-budget-s 0.1 --workers 1 --seed 5 --controller random --run old"}');
INSERT INTO "study_user_attributes" VALUES(9,1,'state','{"status": "finished", "reason": "trials"}');
INSERT INTO "study_user_attributes" VALUES(10,1,'references','[{"name": "mobilenetv2", "latency": {"latency_ms": 0.0031264954091495306, "low_ms": 0.0027315726624008623, "high_ms": 0.003578514925845527, "ratio": 1.0019061244972762, "ratio_low": 0.9903226195427738, "ratio_high": 1.0136251182151204, "against": "reference", "raw_median_ms": 0.003467, "runs": 4824, "rounds": 24, "stopped_by": "budget", "seconds": 0.5373459609999145, "drift": -0.242657666041602, "disturbed": 0.0, "peak_memory_bytes": 3784704, "energy_mj": null, "unit": "host", "source": "measured"}, "latencies": {"host": {"latency_ms": 0.0031264954091495306, "low_ms": 0.0027315726624008623, "high_ms": 0.003578514925845527, "ratio": 1.0019061244972762, "ratio_low": 0.9903226195427738, "ratio_high": 1.0136251182151204, "against": "reference", "raw_median_ms": 0.003467, "runs": 4824, "rounds": 24, "stopped_by": "budget", "seconds": 0.5373459609999145, "drift": -0.242657666041602, "disturbed": 0.0, "peak_memory_bytes": 3784704, "energy_mj": null, "unit": "host", "source": "measured"}}, "accuracy": 0.125, "params": 570, "macs": 9656, "measure_s": 1.3107233580000184, "train_s": 0.09095412800002123}]');
INSERT INTO "study_user_attributes" VALUES(11,1,'elapsed_s','27.80342645099995');
INSERT INTO "study_user_attributes" VALUES(12,1,'update:0','{"trials": 2, "hypervolume": 0.0, "best_reward": -0.2735668401038275, "diagnostics": {}}');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'block1.op',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mbconv2", "mbconv3"]}}');
INSERT INTO "trial_params" VALUES(2,1,'block1.kernel',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [3, 5]}}');
INSERT INTO "trial_params" VALUES(3,1,'block1.se_ratio',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0]}}');
INSERT INTO "trial_params" VALUES(4,1,'block1.skip',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["none"]}}');
INSERT INTO "trial_params" VALUES(5,1,'block1.filters',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0]}}');
INSERT INTO "trial_params" VALUES(6,1,'block1.layers',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0]}}');
INSERT INTO "trial_params" VALUES(7,2,'block1.op',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mbconv2", "mbconv3"]}}');
INSERT INTO "trial_params" VALUES(8,2,'block1.kernel',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [3, 5]}}');
INSERT INTO "trial_params" VALUES(9,2,'block1.se_ratio',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0]}}');
INSERT INTO "trial_params" VALUES(10,2,'block1.skip',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["none"]}}');
INSERT INTO "trial_params" VALUES(11,2,'block1.filters',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0]}}');
INSERT INTO "trial_params" VALUES(12,2,'block1.layers',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0]}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'arch','{"blocks": [{"op": "mbconv", "kernel": 5, "stride": 2, "filters": 8, "layers": 2, "expansion": 2, "se_ratio": 0.0, "skip": "none"}], "stem_filters": 8, "stem_stride": 2, "head_filters": 8, "activation": "relu", "dropout": 0.2, "bn_epsilon": 0.001, "bn_momentum": 0.01, "padding": "same"}');
INSERT INTO "trial_user_attributes" VALUES(2,1,'fingerprint','"45af2e03f3ed6cea"');
INSERT INTO "trial_user_attributes" VALUES(3,1,'params','1874');
INSERT INTO "trial_user_attributes" VALUES(4,1,'macs','23696');
INSERT INTO "trial_user_attributes" VALUES(5,1,'size_bytes','11376');
INSERT INTO "trial_user_attributes" VALUES(6,1,'seed','1465283036');
INSERT INTO "trial_user_attributes" VALUES(7,2,'arch','{"blocks": [{"op": "mbconv", "kernel": 3, "stride": 2, "filters": 8, "layers": 2, "expansion": 3, "se_ratio": 0.0, "skip": "none"}], "stem_filters": 8, "stem_stride": 2, "head_filters": 8, "activation": "relu", "dropout": 0.2, "bn_epsilon": 0.001, "bn_momentum": 0.01, "padding": "same"}');
INSERT INTO "trial_user_attributes" VALUES(8,2,'fingerprint','"a4653610ef6bb30e"');
INSERT INTO "trial_user_attributes" VALUES(9,2,'params','1826');
INSERT INTO "trial_user_attributes" VALUES(10,2,'macs','24416');
INSERT INTO "trial_user_attributes" VALUES(11,2,'size_bytes','11056');
INSERT INTO "trial_user_attributes" VALUES(12,2,'seed','3101376431');
INSERT INTO "trial_user_attributes" VALUES(13,1,'latencies','{"host": {"latency_ms": 0.004573334237305693, "low_ms": 0.003995560246668173, "high_ms": 0.005234656657612263, "ratio": 1.4655551926673271, "ratio_low": 1.4482198893855969, "ratio_high": 1.4830980008604813, "against": "reference", "raw_median_ms": 0.006191, "runs": 3216, "rounds": 16, "stopped_by": "budget", "seconds": 0.8384527719998687, "drift": -0.24674195001304156, "disturbed": 0.3125, "peak_memory_bytes": 3809280, "energy_mj": null, "unit": "host", "source": "measured"}}');
INSERT INTO "trial_user_attributes" VALUES(14,1,'latency','{"latency_ms": 0.004573334237305693, "low_ms": 0.003995560246668173, "high_ms": 0.005234656657612263, "ratio": 1.4655551926673271, "ratio_low": 1.4482198893855969, "ratio_high": 1.4830980008604813, "against": "reference", "raw_median_ms": 0.006191, "runs": 3216, "rounds": 16, "stopped_by": "budget", "seconds": 0.8384527719998687, "drift": -0.24674195001304156, "disturbed": 0.3125, "peak_memory_bytes": 3809280, "energy_mj": null, "unit": "host", "source": "measured"}');
INSERT INTO "trial_user_attributes" VALUES(15,2,'latencies','{"host": {"latency_ms": 0.004286280235984642, "low_ms": 0.0037438215262165556, "high_ms": 0.004907338165758987, "ratio": 1.3735668401038275, "ratio_low": 1.3537975493519083, "ratio_high": 1.393624818671012, "against": "reference", "raw_median_ms": 0.006071, "runs": 3618, "rounds": 18, "stopped_by": "budget", "seconds": 0.6805470209999385, "drift": 0.029800257967226518, "disturbed": 0.0, "peak_memory_bytes": 3805184, "energy_mj": null, "unit": "host", "source": "measured"}}');
INSERT INTO "trial_user_attributes" VALUES(16,2,'latency','{"latency_ms": 0.004286280235984642, "low_ms": 0.0037438215262165556, "high_ms": 0.004907338165758987, "ratio": 1.3735668401038275, "ratio_low": 1.3537975493519083, "ratio_high": 1.393624818671012, "against": "reference", "raw_median_ms": 0.006071, "runs": 3618, "rounds": 18, "stopped_by": "budget", "seconds": 0.6805470209999385, "drift": 0.029800257967226518, "disturbed": 0.0, "peak_memory_bytes": 3805184, "energy_mj": null, "unit": "host", "source": "measured"}');
INSERT INTO "trial_user_attributes" VALUES(17,1,'evaluation','{"accuracy": 0.1, "accuracies": [0.1], "val_images": 40, "train_s": 0.14767417599989585, "images_per_s": 1416.494547824243, "epochs": 1}');
INSERT INTO "trial_user_attributes" VALUES(18,1,'reward','-0.36555519266732717');
INSERT INTO "trial_user_attributes" VALUES(19,2,'evaluation','{"accuracy": 0.1, "accuracies": [0.1], "val_images": 40, "train_s": 0.14991919900000994, "images_per_s": 1966.7355446119686, "epochs": 1}');
INSERT INTO "trial_user_attributes" VALUES(20,2,'reward','-0.2735668401038275');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,0.1,'FINITE');
INSERT INTO "trial_values" VALUES(2,1,1,4.57333423730569340465e-03,'FINITE');
INSERT INTO "trial_values" VALUES(3,2,0,0.1,'FINITE');
INSERT INTO "trial_values" VALUES(4,2,1,4.28628023598464236859e-03,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-30 16:06:09.361721','2026-11-30 16:06:11.239404');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-30 16:06:09.440580','2026-11-30 16:06:11.452283');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
